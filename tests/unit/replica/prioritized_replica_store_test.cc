#include "learner/prioritized_replica_store.h"

#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "replay_server/selectors/interface.h"

namespace troupe {
namespace {

constexpr double kExponent = 0.6;

ReplicaShape ShapeOf(uint32_t capacity) {
  return {.capacity = capacity, .observation_size = 1, .action_size = 1};
}

struct Drawn {
  std::vector<uint64_t> numbers;
  std::vector<float> probabilities;
};
Drawn DrawMany(const PrioritizedReplicaStore& store, size_t count, uint64_t seed = 1) {
  Drawn drawn{std::vector<uint64_t>(count), std::vector<float>(count)};
  store.Draw(seed, absl::MakeSpan(drawn.numbers), absl::MakeSpan(drawn.probabilities));
  return drawn;
}

// Draws are as often as `weights`, by number, say, with the probabilities that they say.
void ExpectDistribution(const PrioritizedReplicaStore& store,
                        const std::map<uint64_t, double>& weights) {
  constexpr size_t kDraws = 200000;
  double total = 0;
  for (const auto& [number, weight] : weights) total += weight;
  const Drawn drawn = DrawMany(store, kDraws);
  std::map<uint64_t, int> counts;
  for (size_t i = 0; i < kDraws; ++i) {
    ASSERT_TRUE(weights.contains(drawn.numbers[i])) << drawn.numbers[i] << " is not in the range";
    ASSERT_NEAR(drawn.probabilities[i], weights.at(drawn.numbers[i]) / total, 1e-6);
    ++counts[drawn.numbers[i]];
  }
  double chi_square = 0;
  for (const auto& [number, weight] : weights) {
    const double expected = kDraws * weight / total;
    chi_square += std::pow(counts[number] - expected, 2) / expected;
  }
  const auto freedom = static_cast<double>(weights.size() - 1);
  EXPECT_LE(chi_square, freedom + 5 * std::sqrt(2 * freedom));
}

TEST(PrioritizedReplicaStoreTest, DrawsAreAsOftenAsPrioritiesSayWhileTheRingTurns) {
  constexpr uint32_t kCapacity = 37;
  PrioritizedReplicaStore store(ShapeOf(kCapacity), kExponent);
  std::mt19937 random(3);
  std::map<uint64_t, double> weights;
  float largest = 1;
  uint64_t tail = 0, head = 0;
  for (int round = 0; round < 10; ++round) {
    head += 1 + random() % 30;
    tail = std::max(tail, head > kCapacity ? head - kCapacity : 0);
    if (round == 5) tail = head - 1;
    ASSERT_TRUE(store.SetRange(tail, head).ok());
    weights.erase(weights.begin(), weights.lower_bound(tail));
    for (uint64_t i = tail; i < head; ++i) weights.try_emplace(i, std::pow(largest, kExponent));
    ExpectDistribution(store, weights);
    std::vector<uint64_t> numbers;
    std::vector<float> priorities;
    for (int i = 0; i < 20; ++i) {
      // Some have left, and some are there twice.
      numbers.push_back(tail > 3 ? tail - 3 + random() % (head - tail + 3) : tail);
      priorities.push_back(static_cast<float>(1 + random() % 1000) / 300);
      if (numbers.back() < tail) continue;
      weights[numbers.back()] = std::pow(priorities.back(), kExponent);
      largest = std::max(largest, priorities.back());
    }
    store.SetPriorities(numbers, priorities);
    ExpectDistribution(store, weights);
  }
}

TEST(PrioritizedReplicaStoreTest, ProbabilitiesAreThoseOfAShardsSelector) {
  constexpr uint64_t kWindows = 640;
  PrioritizedReplicaStore store(ShapeOf(kWindows), kExponent);
  ASSERT_TRUE(store.SetRange(0, kWindows).ok());
  const auto selector = NewPrioritizedSelector(kWindows / 64, kExponent);
  std::mt19937 random(1);
  std::vector<uint64_t> numbers(kWindows);
  std::vector<float> priorities(kWindows);
  for (uint64_t i = 0; i < kWindows; ++i) {
    numbers[i] = i;
    priorities[i] = static_cast<float>(random() % 10000) / 100 + 1e-6f;
  }
  for (uint32_t block = 0; block < kWindows / 64; ++block) {
    selector->Add(block, ~uint64_t{0}, absl::MakeSpan(priorities).subspan(block * 64, 64));
  }
  store.SetPriorities(numbers, priorities);
  std::vector<Selection> selected;
  selector->Select(20000, random, &selected);
  std::map<uint64_t, float> expected;
  for (const Selection& s : selected) expected[uint64_t{s.block} * 64 + s.slot] = s.probability;
  const Drawn drawn = DrawMany(store, 20000);
  size_t compared = 0;
  for (size_t i = 0; i < drawn.numbers.size(); ++i) {
    if (!expected.contains(drawn.numbers[i])) continue;
    ASSERT_NEAR(drawn.probabilities[i], expected[drawn.numbers[i]], 1e-6);
    ++compared;
  }
  EXPECT_GT(compared, 19000);
}

TEST(PrioritizedReplicaStoreTest, ExponentZeroMakesAllAlike) {
  PrioritizedReplicaStore store(ShapeOf(10), 0);
  ASSERT_TRUE(store.SetRange(5, 12).ok());
  const std::vector<uint64_t> numbers = {6, 7};
  const std::vector<float> priorities = {1e-6f, 1e30f};
  store.SetPriorities(numbers, priorities);
  for (const float probability : DrawMany(store, 100).probabilities) {
    EXPECT_FLOAT_EQ(probability, 1.0f / 7);
  }
}

TEST(PrioritizedReplicaStoreTest, DrawsFollowFromTheSeed) {
  PrioritizedReplicaStore store(ShapeOf(1000), kExponent);
  ASSERT_TRUE(store.SetRange(0, 1000).ok());
  EXPECT_EQ(DrawMany(store, 50, 7).numbers, DrawMany(store, 50, 7).numbers);
  EXPECT_NE(DrawMany(store, 50, 7).numbers, DrawMany(store, 50, 8).numbers);
}

}  // namespace
}  // namespace troupe
