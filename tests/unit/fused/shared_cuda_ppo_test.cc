// PPO's batches that ranks share on GPUs, executed by this machine, against those of one learner
// with the whole batch.
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "learner/fused/cpu/cpu_ppo_engine.h"
#include "learner/fused/cuda_ppo_engine.h"
#include "tests/unit/fused/distance.h"
#include "tests/unit/fused/host_ranks.h"
#include "tests/unit/fused/random_ppo.h"

namespace troupe {
namespace {

constexpr int64_t kObservation = 5, kHead = 6, kEpochs = 2;

struct SharedCase {
  friend void PrintTo(const SharedCase& c, std::ostream* out) { *out << c.name; }
  std::string name;
  bool discrete = false;
  double max_kl = 0;
  std::vector<int> failures = {0, 0};  // of what each rank is to capture
};

struct Learned {
  PpoVectors actor, critic;
  std::vector<PpoProgress> progress;
};

class SharedCudaPpoTest : public testing::TestWithParam<SharedCase> {
 protected:
  PpoModel Model() const {
    PpoModel model = MakePpoModel(GetParam().max_kl);
    if (GetParam().discrete) model.num_choices = {4, 2};
    model.actor = MakeFlatNetwork(1, kObservation, {16, 7}, kHead);
    model.critic = MakeFlatNetwork(1, kObservation, {24}, 1);
    return model;
  }

  // `rows`: of a rank, minibatches of equal sizes.
  PpoBatch AnyBatch(int64_t rows, int64_t minibatches) {
    const bool discrete = GetParam().discrete;
    PpoBatch b =
        random_.MakeBatch(rows, kObservation, kHead, discrete ? -2 : -8.4f, kEpochs, minibatches);
    b.advantage = random_.Normal(rows, 2, 1);
    if (!discrete) return b;
    b.a.resize(2 * rows);
    for (size_t i = 0; i < b.a.size(); ++i) {
      b.a[i] = static_cast<float>(random_.engine()() % (4 - i % 2 * 2));
    }
    return b;
  }

  // Each minibatch is those of both together.
  static PpoBatch Joined(const PpoBatch& first, const PpoBatch& second) {
    PpoBatch all = first;
    const auto append = [](std::vector<float>& to, const std::vector<float>& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(all.s, second.s);
    append(all.a, second.a);
    append(all.log_mu, second.log_mu);
    append(all.advantage, second.advantage);
    append(all.target, second.target);
    append(all.v_old, second.v_old);
    all.order.clear();
    for (int64_t i = 0; i < kEpochs * all.minibatches; ++i) {
      for (const PpoBatch* part : {&first, &second}) {
        const int64_t size = part->rows() / all.minibatches;
        for (int64_t j = i * size; j < (i + 1) * size; ++j) {
          all.order.push_back(part->order[j] + (part == &second ? first.rows() : 0));
        }
      }
    }
    return all;
  }

  static void Learn(PpoEngine& engine, const std::vector<PpoBatch>& batches, Learned& learned) {
    ASSERT_TRUE(engine.Load(learned.actor.View(), learned.critic.View()).ok());
    for (const PpoBatch& batch : batches) {
      const auto progress = batch.Improve(engine);
      ASSERT_TRUE(progress.ok()) << progress.status();
      learned.progress.push_back(*progress);
    }
    DescendedFloats actor = learned.actor.View(), critic = learned.critic.View();
    ASSERT_TRUE(engine.Store(actor, critic).ok());
    learned.actor.steps = actor.steps;
    learned.critic.steps = critic.steps;
  }

  RandomPpo random_;
};

TEST_P(SharedCudaPpoTest, RanksAreOneLearnerWithTheirBatches) {
  // A rank's batch grows alone; there are more minibatches than before, and fewer.
  const int64_t rows[][3] = {{40, 32, 4}, {60, 32, 4}, {20, 16, 2}, {48, 72, 8}, {40, 32, 4}};
  std::vector<PpoBatch> batches[kHostRanks + 1];
  for (const auto& [first, second, minibatches] : rows) {
    batches[0].push_back(AnyBatch(first, minibatches));
    batches[1].push_back(AnyBatch(second, minibatches));
    batches[kHostRanks].push_back(Joined(batches[0].back(), batches[1].back()));
  }
  const PpoModel model = Model();
  Learned begin{
      random_.Begin(model.actor.size + model.num_log_stds()), random_.Begin(model.critic.size), {}};
  Learned learned[kHostRanks + 1] = {begin, begin, begin};
  int sums[kHostRanks] = {};
  RunHostRanks(GetParam().failures, [&](HostRanks& ranks) {
    const auto engine = MakeCudaPpoEngine(model, 0, &ranks);
    ASSERT_TRUE(engine.ok()) << engine.status();
    Learn(**engine, batches[ranks.rank()], learned[ranks.rank()]);
    sums[ranks.rank()] = ranks.calls();
  });
  Learn(*MakeCpuPpoEngine(model), batches[kHostRanks], learned[kHostRanks]);

  // NCCL meets while a graph is made, so all ranks make theirs for the same batches.
  if (GetParam().failures[1] == 0) {
    EXPECT_EQ(sums[0], sums[1]);
  }
  const Learned &shared = learned[0], &other = learned[1], &whole = learned[kHostRanks];
  EXPECT_EQ(shared.actor.values, other.actor.values);
  EXPECT_EQ(shared.actor.v, other.actor.v);
  EXPECT_EQ(shared.critic.values, other.critic.values);
  EXPECT_EQ(shared.critic.m, other.critic.m);
  EXPECT_EQ(shared.actor.steps, other.actor.steps);
  EXPECT_EQ(shared.actor.steps, whole.actor.steps);
  EXPECT_LT(Distance(shared.actor.values, whole.actor.values), 1e-4);
  EXPECT_LT(Distance(shared.critic.values, whole.critic.values), 1e-4);
  EXPECT_LT(Distance(shared.actor.m, whole.actor.m), 1e-2);
  ASSERT_EQ(shared.progress.size(), whole.progress.size());
  for (size_t i = 0; i < whole.progress.size(); ++i) {
    const PpoProgress &a = shared.progress[i], &b = whole.progress[i];
    EXPECT_EQ(a.steps, b.steps) << i;
    EXPECT_EQ(a.last_epoch_steps, b.last_epoch_steps) << i;
    EXPECT_NEAR(a.surrogate, b.surrogate, 1e-3 * (1 + std::abs(b.surrogate))) << i;
    EXPECT_NEAR(a.value_loss, b.value_loss, 1e-3 * (1 + std::abs(b.value_loss))) << i;
    EXPECT_NEAR(a.kl, b.kl, 1e-3 * (1 + std::abs(b.kl))) << i;
    EXPECT_NEAR(a.entropy, b.entropy, 1e-3 * (1 + std::abs(b.entropy))) << i;
  }
  if (GetParam().max_kl > 0) {
    EXPECT_LT(whole.actor.steps, 2 * (4 + 4 + 2 + 8 + 4));
    EXPECT_GT(whole.actor.steps, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SharedCudaPpoTest,
                         testing::Values(SharedCase{"AsAGraph"}, SharedCase{"OfChoices", true},
                                         SharedCase{"StopsWhereItIsTooFar", true, 0.12},
                                         SharedCase{"KernelByKernel", false, 0, {1, 1}},
                                         SharedCase{"OneRankKernelByKernel", false, 0, {0, 1}}),
                         [](const auto& info) { return info.param.name; });

TEST(SharedCudaPpoRanksTest, RanksThatSumOnTheHostAreRefused) {
  PpoModel model;
  model.actor = MakeFlatNetwork(1, 3, {8}, 2);
  model.critic = MakeFlatNetwork(1, 3, {8}, 1);
  RankOnTheHost ranks;
  const absl::Status status = MakeCudaPpoEngine(model, 0, &ranks).status();
  EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
}

}  // namespace
}  // namespace troupe
