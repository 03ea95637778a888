// A snapshot as an actor gets it: Policy::FromSnapshot builds networks from it or refuses it, and
// what is built acts within the bounds that the snapshot names.
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/types/span.h"
#include "common/policy.h"
#include "common/recurrence.h"
#include "common/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

constexpr int64_t kObservations = 2;

// The run and the version that the image names, or the next check would end nearly every input.
Snapshot SnapshotOf(absl::string_view input) {
  Snapshot snapshot{.run = "run", .version = 1, .image = SafetensorsImage(input)};
  const absl::StatusOr<Safetensors> image = Safetensors::Parse(snapshot.image);
  if (!image.ok()) return snapshot;
  snapshot.run = image->Metadata("run").value_or("run");
  if (!absl::SimpleAtoi(image->Metadata("version").value_or("1"), &snapshot.version)) {
    snapshot.version = 1;
  }
  return snapshot;
}

absl::Status Act(Policy& policy, bool deterministic, std::vector<float>& actions) {
  const PolicyMetadata& metadata = policy.metadata();
  const std::vector<float> observations(kObservations * metadata.observation_size, 0.5f);
  std::vector<float> state(kObservations * StateSize(metadata.recurrence));
  const MemorySpans memory{state, absl::MakeSpan(state)};
  int64_t stack_bytes = metadata.image_shape.empty() ? 0 : metadata.encoder.frame_stack();
  for (const int64_t axis : metadata.image_shape) stack_bytes *= axis;
  const std::vector<uint8_t> images(kObservations * stack_bytes, 128);
  if (deterministic) {
    return policy.Mode(observations, kObservations, absl::MakeSpan(actions), memory, images);
  }
  std::vector<float> rows(actions.size()), log_probs(kObservations);
  absl::Status status = policy.Sample(
      observations, kObservations,
      {absl::MakeSpan(actions), absl::MakeSpan(rows), absl::MakeSpan(log_probs)}, memory, images);
  if (!status.ok()) return status;
  for (const float element : state) Require(std::isfinite(element), "a state gets ", element);
  for (const float element : rows) Require(std::isfinite(element), "a row gets ", element);
  for (const float log_prob : log_probs) Require(std::isfinite(log_prob), "log_prob ", log_prob);
  return status;
}

void CheckActions(Policy& policy, bool deterministic) {
  const PolicyMetadata& metadata = policy.metadata();
  std::vector<float> actions(kObservations * metadata.action_size, NAN);
  if (!Act(policy, deterministic, actions).ok()) return;
  const bool discrete = metadata.distribution == Distribution::kCategorical;
  for (size_t i = 0; i < actions.size(); ++i) {
    const size_t element = i % metadata.action_size;
    const double low = discrete ? 0 : metadata.action_low[element];
    const double high =
        discrete ? metadata.num_choices[element] - 1.0 : metadata.action_high[element];
    Require(actions[i] >= static_cast<float>(low) && actions[i] <= static_cast<float>(high),
            "action ", actions[i], " is outside [", low, ", ", high, "]");
  }
}

void TestOne(absl::string_view input) {
  const Snapshot snapshot = SnapshotOf(input);
  absl::StatusOr<std::unique_ptr<Policy>> policy = Policy::FromSnapshot(snapshot);
  if (!policy.ok()) {
    Require(absl::IsInvalidArgument(policy.status()), policy.status());
    return;
  }
  for (const bool deterministic : {true, false}) CheckActions(**policy, deterministic);
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
