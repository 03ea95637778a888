// SAC updates, or PPO minibatches, per second from packed windows in memory, as a line of
// bench.jsonl; or how often a second the matrix products of a SAC update alone go through
// LibTorch's BLAS.
//   learner_bench [--algorithm sac|ppo|products] [--engine AUTO|FUSED|REFERENCE] [--device cpu]
//                 [--obs 17] [--act 6] [--batch 256] [--threads 1] [--seconds 5]
//                 [--set learner.sac.num_critics=10,learner.sac.min_subset=2]
// OPENBLAS_NUM_THREADS=1 must be set, as it is for the learner.
#include <malloc.h>

#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/config_overrides.h"
#include "common/window_batch.h"
#include "learner/algorithm.h"
#include "learner/make_algorithm.h"
#include "tests/bench/bench_line.h"
#include "tests/bench/learner/products.h"

ABSL_FLAG(std::string, algorithm, "sac", "sac, ppo or products");
ABSL_FLAG(std::string, engine, "AUTO", "AUTO, FUSED or REFERENCE");
ABSL_FLAG(std::string, device, "cpu", "cpu or cuda");
ABSL_FLAG(int, obs, 17, "elements of an observation");
ABSL_FLAG(int, act, 6, "elements of an action");
ABSL_FLAG(int, batch, 256, "windows of a batch, or steps of a minibatch");
ABSL_FLAG(int, threads, 1, "threads inside one update");
ABSL_FLAG(std::vector<std::string>, set, {}, "settings of the configuration");
ABSL_FLAG(double, seconds, 5, "how long to measure, after a fifth of it to warm up");

namespace troupe {
namespace {

constexpr int kBatches = 64;
// PPO: a batch of the lecture's size.
constexpr int kUnrolls = 8, kUnrollLength = 256;

bool IsPpo() { return absl::GetFlag(FLAGS_algorithm) == "ppo"; }

proto::Layout MakeLayout() {
  proto::Layout layout;
  proto::Column* column = layout.add_columns();
  column->set_name("observation");
  column->set_dtype(proto::FLOAT32);
  column->add_shape(absl::GetFlag(FLAGS_obs));
  column = layout.add_columns();
  column->set_name("action");
  column->set_dtype(proto::FLOAT32);
  column->add_shape(absl::GetFlag(FLAGS_act));
  for (int i = 0; i < absl::GetFlag(FLAGS_act); ++i) {
    column->add_low(-1);
    column->add_high(1);
  }
  column = layout.add_columns();
  column->set_name("reward");
  column->set_dtype(proto::FLOAT32);
  column = layout.add_columns();
  column->set_name("log_prob");
  column->set_dtype(proto::FLOAT32);
  return layout;
}

// Batches whose every column is uniform in (-1, 1).
std::vector<WindowBatch> RandomBatches(const Layout& layout) {
  const int window = IsPpo() ? kUnrollLength + 1 : 2;
  const int n = IsPpo() ? kUnrolls : absl::GetFlag(FLAGS_batch);
  const auto pool = std::make_shared<BatchPool>(n, window, layout.stride_bytes());
  std::mt19937 engine(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<WindowBatch> batches;
  for (int i = 0; i < kBatches; ++i) {
    batches.push_back(pool->Take());
    for (int row = 0; row < n * window; ++row) {
      uint8_t* const packed = batches.back().buffer->data + row * layout.stride_bytes();
      std::memset(packed, 0, layout.stride_bytes());
      for (const ColumnLayout& column : layout.columns()) {
        for (int64_t j = 0; j < column.num_elements; ++j) {
          const float value = uniform(engine);
          std::memcpy(packed + column.offset_bytes + j * sizeof(value), &value, sizeof(value));
        }
      }
    }
  }
  return batches;
}

absl::StatusOr<double> UpdatesPerSecond(Algorithm& algorithm,
                                        const std::vector<WindowBatch>& batches,
                                        absl::Duration duration) {
  const absl::Time start = absl::Now();
  const int64_t before = algorithm.updates();
  for (size_t i = 0; absl::Now() - start < duration; ++i) {
    const absl::Status status = algorithm.Update(batches[i % batches.size()], /*env_steps=*/0);
    if (!status.ok()) return status;
  }
  algorithm.Statistics();  // waits for the device
  return static_cast<double>(algorithm.updates() - before) /
         absl::ToDoubleSeconds(absl::Now() - start);
}

absl::StatusOr<double> MeasureLearner() {
  proto::Config config;
  const std::string engine = absl::GetFlag(FLAGS_engine);
  proto::Engine which;
  if (!proto::Engine_Parse(engine, &which)) {
    return absl::InvalidArgumentError(absl::StrCat("no engine '", engine, "'"));
  }
  config.mutable_learner()->set_engine(which);
  config.mutable_learner()->set_device(absl::GetFlag(FLAGS_device));
  config.mutable_learner()->set_num_threads(absl::GetFlag(FLAGS_threads));
  if (IsPpo()) {
    proto::Ppo& ppo = *config.mutable_learner()->mutable_ppo();
    ppo.set_unroll_length(kUnrollLength);
    ppo.set_batch_windows(kUnrolls);
    ppo.set_minibatch_size(absl::GetFlag(FLAGS_batch));
  } else {
    config.mutable_learner()->mutable_sac()->set_batch_size(absl::GetFlag(FLAGS_batch));
  }
  for (const std::string& word : absl::GetFlag(FLAGS_set)) {
    if (absl::Status status = ApplyOverride(word, config); !status.ok()) return status;
  }
  const absl::StatusOr<Layout> layout = Layout::FromProto(MakeLayout());
  if (!layout.ok()) return layout.status();
  const auto algorithm = MakeAlgorithm(config, *layout);
  if (!algorithm.ok()) return algorithm.status();
  const std::vector<WindowBatch> batches = RandomBatches(*layout);
  const absl::Duration duration = absl::Seconds(absl::GetFlag(FLAGS_seconds));
  const auto warm = UpdatesPerSecond(**algorithm, batches, duration / 5);
  if (!warm.ok()) return warm.status();
  return UpdatesPerSecond(**algorithm, batches, duration);
}

absl::StatusOr<nlohmann::ordered_json> Measure() {
  const std::string algorithm = absl::GetFlag(FLAGS_algorithm),
                    engine = absl::GetFlag(FLAGS_engine);
  const auto rate =
      algorithm == "products"
          ? ProductsPerSecond(absl::GetFlag(FLAGS_obs), absl::GetFlag(FLAGS_act),
                              absl::GetFlag(FLAGS_batch), absl::GetFlag(FLAGS_threads),
                              absl::Seconds(absl::GetFlag(FLAGS_seconds)))
          : MeasureLearner();
  if (!rate.ok()) return rate.status();
  const std::string sets = absl::StrJoin(absl::GetFlag(FLAGS_set), ",");
  const std::string name =
      engine == "REFERENCE" ? absl::StrCat(algorithm, ".reference") : algorithm;
  return nlohmann::ordered_json{
      {"name", absl::StrCat("learner.", name)},
      {"case", absl::StrCat(absl::GetFlag(FLAGS_device), "/", absl::GetFlag(FLAGS_obs), "-",
                            absl::GetFlag(FLAGS_act), "/", absl::GetFlag(FLAGS_batch), "/",
                            absl::GetFlag(FLAGS_threads), sets.empty() ? "" : "/", sets)},
      {"value", *rate},
      {"unit", IsPpo() ? "minibatches/s" : "updates/s"},
      {"machine", Machine()}};
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // as the learner does
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  const auto line = troupe::Measure();
  if (!line.ok()) {
    std::cerr << "learner_bench: " << line.status().message() << "\n";
    return 1;
  }
  std::cout << line->dump() << "\n";
  return 0;
}
