#include "learner/policy_lag.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "common/layout.h"

namespace troupe {
namespace {

using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr int64_t kStride = 32;

// One window of steps by these versions, and a final row by another.
WindowBatch Window(const std::vector<PolicyVersion>& versions) {
  const auto length = static_cast<int64_t>(versions.size()) + 1;
  WindowBatch batch = std::make_shared<BatchPool>(1, length, kStride)->Take();
  for (int64_t t = 0; t < length; ++t) {
    RowHeader header = {.policy_version = 1, .flags = kCut};
    if (t + 1 < length) header = {.policy_version = versions[t].Packed(), .flags = 0};
    WriteRowHeader(header, batch.buffer->data + t * kStride);
  }
  return batch;
}

TEST(PolicyLagTest, IsThatOfTheOldestAndTheNewestStepOverBatches) {
  PolicyLag lag;
  lag.Add(Window({{2, 7}, {2, 5}}), {2, 7});
  lag.Add(Window({{2, 7}}), {2, 8});
  EXPECT_THAT(lag.Statistics(),
              UnorderedElementsAre(Pair("policy_lag_min", 0), Pair("policy_lag_max", 2)));
}

TEST(PolicyLagTest, SaysNothingWithoutSteps) {
  PolicyLag lag;
  EXPECT_THAT(lag.Statistics(), IsEmpty());
  lag.Add(Window({{2, 7}}), {2, 8});
  lag.Clear();
  lag.Add(Window({}), {2, 8});
  EXPECT_THAT(lag.Statistics(), IsEmpty());
}

TEST(PolicyLagTest, AnEarlierLearnersPolicyIsFurtherBehindThanAnyOfThisOne) {
  PolicyLag lag;
  lag.Add(Window({{1, 900}}), {2, 1});
  EXPECT_GT(lag.Statistics().at("policy_lag_min"), 1e9);
}

}  // namespace
}  // namespace troupe
