// PPO's batches that ranks share against those of one learner with the whole batch.
#include <cmath>
#include <random>

#include "common/safetensors.h"
#include "common/tensor_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/fused/cpu/cpu_ppo_engine.h"
#include "learner/ppo.h"
#include "learner/shared_batches.h"
#include "tests/unit/learner/ppo_rows.h"
#include "tests/unit/ranks/run_ranks.h"

namespace troupe {
namespace {

using torch::Tensor;

constexpr int64_t kUnroll = 12;
constexpr int kBatches = 4;

struct PpoCase {
  friend void PrintTo(const PpoCase& c, std::ostream* out) { *out << c.name; }
  std::string name;
  bool fused = false, discrete = false;
  proto::Ppo config;
};

std::vector<PpoCase> AllCases() {
  proto::Ppo config;
  config.set_unroll_length(kUnroll);
  config.set_batch_windows(2);
  config.set_minibatch_size(0);  // all of a batch, so that its order does not matter
  config.set_epochs(5);
  config.set_learning_rate(1e-3);
  config.set_entropy_coefficient(0.01);
  config.set_value_clip(0.5);
  for (proto::Mlp* mlp : {config.mutable_actor(), config.mutable_critic()}) {
    mlp->add_hidden_sizes(16);
  }
  std::vector<PpoCase> cases = {{"Fused", true, false, config},
                                {"ClosedForm", false, false, config},
                                {"DiscreteByAutograd", false, true, config}};
  config.set_max_kl(1);  // see SetUp()
  config.set_learning_rate(1e-2);
  cases.push_back({"FusedUntilTooFar", true, false, config});
  cases.push_back({"UntilTooFarByAutograd", false, true, config});
  config.clear_max_kl();
  config.set_learning_rate(1e-3);
  config.set_learning_rate_schedule(proto::KL_ADAPTIVE);
  cases.push_back({"AdaptiveByAutograd", false, false, config});
  config.clear_learning_rate_schedule();
  config.set_surrogate(proto::KL_PENALTY);
  cases.push_back({"KlPenaltyByAutograd", false, false, config});
  return cases;
}

class SharedPpoTest : public testing::TestWithParam<PpoCase> {
 protected:
  Layout layout() const {
    return GetParam().discrete ? DiscreteLayout(3, {4}) : ContinuousLayout(3, {-1, -1}, {1, 1});
  }

  // Rows of four windows; a final row somewhere in each but the first two.
  std::vector<PpoRow> AnyRows() {
    std::normal_distribution<float> normal;
    std::vector<PpoRow> rows;
    for (int64_t i = 0; i < 4 * (kUnroll + 1); ++i) {
      PpoRow row{.observation = {normal(engine_), normal(engine_) + 3, normal(engine_)},
                 .reward = normal(engine_),
                 .log_prob = -1.4f};
      if (GetParam().discrete) {
        row.choices = {static_cast<int32_t>(engine_() % 4)};
      } else {
        const float a = normal(engine_), b = normal(engine_);
        row.action = {a, b};
        row.log_prob = -0.5f * (a * a + b * b) - 1.84f;  // about as likely as they are at first
      }
      if (i >= 2 * (kUnroll + 1) && i % 5 == 0) row.flags = kTerminated;
      rows.push_back(std::move(row));
    }
    return rows;
  }

  // A KL that is reached in the middle of the first batch.
  void SetUp() override {
    if (!config_.has_max_kl()) return;
    config_.clear_max_kl();
    const std::vector<PpoRow> rows = AnyRows();
    engine_.seed(1);
    std::vector<double> kl;
    for (const int epochs : {1, 3}) {
      config_.set_epochs(epochs);
      const auto ppo = Make(nullptr);
      ASSERT_TRUE(ppo->Update(ToBatch(layout(), rows, 4), 0).ok());
      kl.push_back(ppo->Statistics().at("kl"));
    }
    config_.set_epochs(GetParam().config.epochs());
    config_.set_max_kl((kl[0] + kl[1]) / 2);
    ASSERT_GT(kl[1], kl[0]);
  }

  std::unique_ptr<Ppo> Make(RankGroup* ranks) const {
    MakePpoEngine make;
    if (GetParam().fused) {
      make = [ranks](const PpoModel& model) { return MakeCpuPpoEngine(model, 1, ranks); };
    }
    auto ppo = Ppo::Create({.config = config_, .make_engine = make, .ranks = ranks}, layout());
    EXPECT_TRUE(ppo.ok()) << ppo.status();
    EXPECT_EQ((*ppo)->fused().ok(), GetParam().fused);
    return *std::move(ppo);
  }

  proto::Ppo config_ = GetParam().config;
  std::mt19937 engine_{1};
};

using Files = std::map<std::string, std::string>;

// Of each rank of 2, and last of the one that is alone.
struct Outcome {
  Files files;
  std::map<std::string, double> statistics;
  int64_t updates = 0;
};

void ExpectNear(const Files& shared, const Files& whole) {
  for (const char* const file : {"model.safetensors", "optimizer_state.safetensors"}) {
    const Safetensors a = *Safetensors::Parse(shared.at(file));
    const Safetensors b = *Safetensors::Parse(whole.at(file));
    for (const auto& [name, view] : b.tensors()) {
      const auto read = [&](const Safetensors& from) {
        return ReadTensor(from, name,
                          view.dtype == proto::FLOAT32   ? torch::kFloat32
                          : view.dtype == proto::FLOAT64 ? torch::kFloat64
                                                         : torch::kInt64,
                          view.shape)
            .value()
            .to(torch::kFloat64);
      };
      const Tensor difference = read(a) - read(b);
      EXPECT_LE(difference.norm().item<double>(), 1e-4 * (1e-3 + read(b).norm().item<double>()))
          << name;
    }
  }
}

TEST_P(SharedPpoTest, RanksAreOneLearnerWithTheirBatches) {
  std::vector<std::vector<PpoRow>> batches;
  for (int i = 0; i < kBatches; ++i) batches.push_back(AnyRows());
  std::vector<Outcome> outcomes(3);
  const auto learn = [&](Ppo& ppo, int64_t first_window, int64_t windows, Outcome& outcome) {
    for (const std::vector<PpoRow>& rows : batches) {
      const auto begin = rows.begin() + first_window * (kUnroll + 1);
      const WindowBatch batch =
          ToBatch(layout(), {begin, begin + windows * (kUnroll + 1)}, windows);
      const absl::Status status = ppo.Update(batch, 0);
      ASSERT_TRUE(status.ok()) << status;
    }
    outcome = {ppo.Save().value(), ppo.Statistics(), ppo.updates()};
  };
  RunRanks(2, [&](std::unique_ptr<RankGroup> ranks) {
    learn(*Make(ranks.get()), 2 * ranks->rank(), 2, outcomes[ranks->rank()]);
  });
  learn(*Make(nullptr), 0, 4, outcomes[2]);
  EXPECT_EQ(outcomes[0].files, outcomes[1].files);
  EXPECT_GT(outcomes[2].updates, 0);
  EXPECT_EQ(outcomes[0].updates, outcomes[2].updates);
  ExpectNear(outcomes[0].files, outcomes[2].files);
  for (const char* const name : {"kl", "clip_fraction", "policy_loss", "value_loss", "entropy"}) {
    EXPECT_NEAR(outcomes[0].statistics.at(name), outcomes[2].statistics.at(name), 1e-4) << name;
  }
}

// Each rank shuffles its own steps, of which they have different numbers.
TEST_P(SharedPpoTest, RanksStayTheSameThroughMinibatches) {
  std::vector<Files> files(2);
  config_.set_minibatch_size(5);
  const std::vector<PpoRow> rows = AnyRows();
  RunRanks(2, [&](std::unique_ptr<RankGroup> ranks) {
    const auto ppo = Make(ranks.get());
    const auto begin = rows.begin() + 2 * ranks->rank() * (kUnroll + 1);
    const WindowBatch batch = ToBatch(layout(), {begin, begin + 2 * (kUnroll + 1)}, 2);
    for (int i = 0; i < kBatches; ++i) ASSERT_TRUE(ppo->Update(batch, 0).ok());
    files[ranks->rank()] = ppo->Save().value();
  });
  EXPECT_EQ(files[0], files[1]);
}

INSTANTIATE_TEST_SUITE_P(All, SharedPpoTest, testing::ValuesIn(AllCases()),
                         [](const auto& info) { return info.param.name; });

// Gives batches of 4 windows of 2 rows of 3 bytes, of which every second one is late.
class CountedBatches final : public BatchSource {
 public:
  absl::StatusOr<WindowBatch> Next(const PolicyVersion& version, absl::Time deadline) override {
    if (++asked_ % 2 == 1) return absl::DeadlineExceededError("late");
    WindowBatch batch = pool_->Take();
    for (int i = 0; i < 24; ++i) batch.buffer->data[i] = static_cast<uint8_t>(asked_ + i);
    return batch;
  }
  int64_t steps_too_old() const override { return 7; }

 private:
  const std::shared_ptr<BatchPool> pool_ = std::make_shared<BatchPool>(4, 2, 3);
  int asked_ = 0;
};

TEST(SharedBatchesTest, EachRankGetsItsShareOfWhatTheFirstGathers) {
  std::vector<std::vector<uint8_t>> shares(2);
  RunRanks(2, [&](std::unique_ptr<RankGroup> ranks) {
    const int rank = ranks->rank();
    SharedBatches batches(rank == 0 ? std::make_unique<CountedBatches>() : nullptr, *ranks,
                          {.batch_windows = 2, .window_length = 2, .stride_bytes = 3});
    EXPECT_EQ(batches.steps_too_old(), rank == 0 ? 7 : 0);
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(batches.Next({}, absl::Now()).status().code(), absl::StatusCode::kDeadlineExceeded);
      const absl::StatusOr<WindowBatch> share = batches.Next({}, absl::Now());
      ASSERT_TRUE(share.ok()) << share.status();
      EXPECT_EQ(share->num_windows, 2);
      shares[rank].push_back(*share->row(0, 0));
      shares[rank].push_back(*share->row(1, 1));
    }
  });
  EXPECT_THAT(shares[0], testing::ElementsAre(2, 11, 4, 13));
  EXPECT_THAT(shares[1], testing::ElementsAre(14, 23, 16, 25));
}

TEST(SharedBatchesTest, BatchesOfAnotherSizeAreAnErrorAtEachRank) {
  RunRanks(2, [](std::unique_ptr<RankGroup> ranks) {
    SharedBatches batches(ranks->rank() == 0 ? std::make_unique<CountedBatches>() : nullptr, *ranks,
                          {.batch_windows = 3, .window_length = 2, .stride_bytes = 3});
    EXPECT_FALSE(batches.Next({}, absl::Now()).ok());
    EXPECT_EQ(batches.Next({}, absl::Now()).status().code(), absl::StatusCode::kInternal);
  });
}

}  // namespace
}  // namespace troupe
