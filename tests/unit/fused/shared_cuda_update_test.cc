// Updates that ranks share on GPUs, executed by this machine, against those of one learner with the
// whole batch.
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "gtest/gtest.h"
#include "learner/fused/cpu/cpu_sac_engine.h"
#include "learner/fused/cuda_sac_engine.h"
#include "tests/gpu_on_host/cuda_runtime_api.h"
#include "tests/unit/fused/random_sac.h"

namespace troupe {
namespace {

constexpr int kRanks = 2, kUpdates = 6;

// Where the ranks meet, each in a thread of its own.
class MeetingPlace final {
 public:
  // All ranks' numbers, once all have given theirs.  Every rank makes as many calls.
  std::vector<std::vector<float>> Exchange(int rank, std::vector<float> mine) {
    const absl::MutexLock lock(&mutex_);
    const int64_t call = calls_[rank]++;
    if (static_cast<int64_t>(given_.size()) <= call) given_.resize(call + 1);
    given_[call].resize(kRanks);
    given_[call][rank] = std::move(mine);
    const auto all_came = [&] {
      for (int64_t calls : calls_) {
        if (calls <= call) return false;
      }
      return true;
    };
    mutex_.Await(absl::Condition(&all_came));
    return given_[call];
  }

 private:
  absl::Mutex mutex_;
  int64_t calls_[kRanks] = {};
  std::vector<std::vector<std::vector<float>>> given_;
};

class HostRanks final : public RankGroup {
 public:
  enum class Capture { kPossible, kFails };
  HostRanks(int rank, MeetingPlace* place, Capture capture)
      : rank_(rank), place_(place), capture_(capture) {}

  int rank() const override { return rank_; }
  int size() const override { return kRanks; }
  absl::Status Sum(absl::Span<float> values) override { return Refuse(); }
  absl::Status Sum(absl::Span<double> values) override { return Refuse(); }
  absl::StatusOr<int64_t> Least(int64_t value) override { return Refuse(); }
  absl::StatusOr<std::string> FromFirst(std::string bytes) override { return Refuse(); }

  absl::Status SumOnDevice(float* values, int64_t n, void* stream) override {
    const int call = calls_++;  // the first meets the ranks, the next two are to be captured
    if (capture_ == Capture::kFails && (call == 1 || call == 2)) {
      return absl::InternalError("this cannot be captured");
    }
    gpu_on_host::Give(static_cast<cudaStream_t>(stream), [this, values, n] {
      const auto all = place_->Exchange(rank_, {values, values + n});
      for (int64_t i = 0; i < n; ++i) values[i] = all[0][i] + all[1][i];
    });
    return absl::OkStatus();
  }

 private:
  static absl::Status Refuse() { return absl::UnimplementedError("not on the host"); }

  const int rank_;
  MeetingPlace* const place_;
  const Capture capture_;
  int calls_ = 0;
};

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

SacModel Model() {
  return {.observation_size = 5,
          .action_size = 2,
          .actor_hidden = {24, 16},
          .critic_hidden = {32, 24},
          .batch_size = 96,
          .actor_learning_rate = 1e-3f,
          .critic_learning_rate = 1e-3f,
          .target_entropy = -2};
}

struct Outcome {
  SacState state;
  SacStatistics statistics;
};

// Of both ranks, each in a thread of its own, then of one learner, on the CPU.
std::vector<Outcome> LearnTogether(const SacModel& model, HostRanks::Capture capture,
                                   const std::function<void(SacEngine&, int rank)>& learn) {
  std::vector<Outcome> outcomes(kRanks + 1);
  const SacState begin = RandomSac(model).State();
  MeetingPlace place;
  std::vector<std::thread> threads;
  threads.reserve(kRanks);
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      HostRanks ranks(rank, &place, capture);
      const auto engine = MakeCudaSacEngine(model, {.exact = true, .updates_per_graph = 2}, &ranks);
      ASSERT_TRUE(engine.ok()) << engine.status();
      ASSERT_TRUE((*engine)->Load(begin).ok());
      learn(**engine, rank);
      outcomes[rank] = {*(*engine)->Save(), *(*engine)->Statistics()};
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto alone = MakeCpuSacEngine(model);
  EXPECT_TRUE(alone->Load(begin).ok());
  learn(*alone, -1);
  outcomes[kRanks] = {*alone->Save(), *alone->Statistics()};
  return outcomes;
}

void ExpectAsOne(const std::vector<Outcome>& outcomes) {
  const SacState &first = outcomes[0].state, &second = outcomes[1].state;
  EXPECT_EQ(first.actor.values, second.actor.values);
  EXPECT_EQ(first.actor.m, second.actor.m);
  EXPECT_EQ(first.critics.values, second.critics.values);
  EXPECT_EQ(first.critics.v, second.critics.v);
  EXPECT_EQ(first.target_critics, second.target_critics);
  EXPECT_EQ(first.log_alpha.values, second.log_alpha.values);
  const SacState& alone = outcomes[kRanks].state;
  EXPECT_LT(Distance(first.actor.values, alone.actor.values), 1e-4);
  EXPECT_LT(Distance(first.critics.values, alone.critics.values), 1e-4);
  EXPECT_LT(Distance(first.critics.m, alone.critics.m), 1e-3);
  EXPECT_LT(Distance(first.target_critics, alone.target_critics), 1e-4);
  EXPECT_NEAR(first.log_alpha.values[0], alone.log_alpha.values[0], 1e-4);
  EXPECT_EQ(first.updates, alone.updates);
  EXPECT_EQ(first.actor.steps, alone.actor.steps);
  const SacStatistics &shared = outcomes[0].statistics, &whole = outcomes[kRanks].statistics;
  EXPECT_NEAR(shared.q_loss, whole.q_loss, 1e-3);
  EXPECT_NEAR(shared.q_mean, whole.q_mean, 1e-3);
  EXPECT_NEAR(shared.actor_loss, whole.actor_loss, 1e-3);
  EXPECT_NEAR(shared.entropy, whole.entropy, 1e-3);
}

class SharedCudaUpdateTest : public testing::TestWithParam<HostRanks::Capture> {};

TEST_P(SharedCudaUpdateTest, RanksAreOneLearnerWithTheirBatches) {
  const SacModel model = Model();
  RandomSac random(model, 5);
  std::vector<RandomSac::Batch> batches;
  batches.reserve(kUpdates);
  for (int i = 0; i < kUpdates; ++i) batches.push_back(random.MakeBatch());
  batches[1].noise = random.Uniform(2 * model.batch_size * model.action_size, 1);
  ExpectAsOne(LearnTogether(model, GetParam(), [&](SacEngine& engine, int rank) {
    for (const RandomSac::Batch& batch : batches) {
      SacBatch share = batch.View();
      if (rank >= 0) share.transitions = share.transitions.subspan(48 * rank, 48);
      ASSERT_TRUE(engine.Update(share).ok());
    }
  }));
}

TEST_P(SharedCudaUpdateTest, RanksAreOneLearnerWithLayerNorm) {
  SacModel model = Model();
  model.actor_layer_norm = model.critic_layer_norm = true;
  ExpectAsOne(LearnTogether(model, GetParam(), [&](SacEngine& engine, int) {
    const auto replica =
        engine.MakeReplica({.capacity = 256, .observation_size = 5, .action_size = 2});
    ASSERT_TRUE(replica.ok()) << replica.status();
    ASSERT_TRUE(RandomSac(model, 3).Fill(**replica).ok());
    ASSERT_TRUE(engine.UpdateFromReplica(kUpdates).ok());
  }));
}

TEST_P(SharedCudaUpdateTest, RanksThatDrawFromEqualReplicasAreOneLearner) {
  SacModel model = Model();
  for (const int interval : {1, 2}) {
    model.actor_update_interval = interval;
    ExpectAsOne(LearnTogether(model, GetParam(), [&](SacEngine& engine, int) {
      const auto replica =
          engine.MakeReplica({.capacity = 256, .observation_size = 5, .action_size = 2});
      ASSERT_TRUE(replica.ok()) << replica.status();
      ASSERT_TRUE(RandomSac(model, 3).Fill(**replica).ok());
      ASSERT_TRUE(engine.UpdateFromReplica(kUpdates + 1).ok());
    }));
  }
}

INSTANTIATE_TEST_SUITE_P(Captured, SharedCudaUpdateTest,
                         testing::Values(HostRanks::Capture::kPossible, HostRanks::Capture::kFails),
                         [](const auto& info) {
                           return info.param == HostRanks::Capture::kPossible ? "AsAGraph"
                                                                              : "KernelByKernel";
                         });

TEST(CudaRanksTest, RanksThatSumOnTheHostAreRefused) {
  class OnTheHost final : public RankGroup {
   public:
    int rank() const override { return 0; }
    int size() const override { return 1; }
    absl::Status Sum(absl::Span<float> values) override { return absl::OkStatus(); }
    absl::Status Sum(absl::Span<double> values) override { return absl::OkStatus(); }
    absl::StatusOr<int64_t> Least(int64_t value) override { return value; }
    absl::StatusOr<std::string> FromFirst(std::string bytes) override { return bytes; }
  };
  OnTheHost ranks;
  const absl::Status status = MakeCudaSacEngine(Model(), {}, &ranks).status();
  EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
}

}  // namespace
}  // namespace troupe
