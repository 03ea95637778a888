#include "actor/vector_env.h"

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

constexpr uint64_t kSeed = 7;

proto::Environment Config(const std::string& id, int max_episode_steps = 0) {
  proto::Environment config;
  config.set_id(id);
  if (max_episode_steps > 0) config.set_max_episode_steps(max_episode_steps);
  return config;
}

std::unique_ptr<VectorEnv> Make(const proto::Environment& config, int num_envs, int num_threads,
                                uint64_t seed = kSeed) {
  auto envs = VectorEnv::Make(config, DefaultAssetDir(), num_envs, num_threads, seed);
  EXPECT_TRUE(envs.ok()) << envs.status();
  return *std::move(envs);
}

// Actions for every environment, the same in every test.
class Actions {
 public:
  explicit Actions(const VectorEnv& envs)
      : values_(envs.num_envs() * envs.spec().action_size),
        draw_(-1, envs.spec().num_choices.empty() ? 1 : envs.spec().num_choices[0] - 1) {}
  absl::Span<const float> Next() {
    for (float& a : values_) a = draw_(engine_);
    return values_;
  }

 private:
  std::vector<float> values_;
  std::mt19937 engine_{1};
  std::uniform_real_distribution<float> draw_;
};

// What VectorEnv promises, done with single environments one after another.
class OneByOne {
 public:
  OneByOne(const proto::Environment& config, int num_envs)
      : episodes_(num_envs), returns_(num_envs), lengths_(num_envs) {
    for (int i = 0; i < num_envs; ++i) {
      envs_.push_back(*MakeEnv(config, DefaultAssetDir()));
      observations_.push_back(Start(i));
    }
  }

  // Steps environment i and compares everything that `vector` says of it.
  void StepAndCompare(int i, absl::Span<const float> actions, const VectorEnv& vector) {
    const EnvSpec& spec = vector.spec();
    const auto mine = actions.subspan(i * spec.action_size, spec.action_size);
    std::vector<double> last(spec.observation_size);
    const StepResult result =
        envs_[i]->Step(std::vector<double>(mine.begin(), mine.end()), absl::MakeSpan(last));
    returns_[i] += result.reward;
    ++lengths_[i];
    const bool ended = result.terminated || result.truncated;
    ends_ += ended;
    EXPECT_EQ(vector.rewards()[i], static_cast<float>(result.reward));
    EXPECT_EQ(vector.terminated()[i], result.terminated);
    EXPECT_EQ(vector.truncated()[i], result.truncated);
    EXPECT_EQ(Row(vector.next_observations(), i), AsFloat(last));
    EXPECT_EQ(vector.episode_returns()[i], ended ? returns_[i] : 0);
    EXPECT_EQ(vector.episode_lengths()[i], ended ? lengths_[i] : 0);
    EXPECT_EQ(Row(vector.observations(), i), ended ? Start(i) : AsFloat(last));
  }

  // Number of episodes that ended.
  int ends() const { return ends_; }
  const std::vector<std::vector<float>>& first_observations() const { return observations_; }

  static std::vector<float> Row(absl::Span<const float> rows, int i, int64_t size) {
    const auto row = rows.subspan(i * size, size);
    return {row.begin(), row.end()};
  }

 private:
  std::vector<float> Row(absl::Span<const float> rows, int i) const {
    return Row(rows, i, envs_[i]->spec().observation_size);
  }
  static std::vector<float> AsFloat(const std::vector<double>& x) { return {x.begin(), x.end()}; }

  std::vector<float> Start(int i) {
    std::vector<double> observation(envs_[i]->spec().observation_size);
    envs_[i]->Reset(VectorEnv::EpisodeSeed(kSeed, i, episodes_[i]++), absl::MakeSpan(observation));
    returns_[i] = 0;
    lengths_[i] = 0;
    return AsFloat(observation);
  }

  std::vector<std::unique_ptr<Env>> envs_;
  std::vector<int64_t> episodes_;
  std::vector<double> returns_;
  std::vector<int64_t> lengths_;
  std::vector<std::vector<float>> observations_;
  int ends_ = 0;
};

struct ThreadsCase {
  std::string name, id;
  int max_episode_steps, num_envs, num_threads, steps;
};

void PrintTo(const ThreadsCase& c, std::ostream* out) { *out << c.name; }

class Threads : public testing::TestWithParam<ThreadsCase> {};

TEST_P(Threads, GiveBitForBitWhatSingleEnvironmentsGive) {
  const ThreadsCase& c = GetParam();
  const proto::Environment config = Config(c.id, c.max_episode_steps);
  const auto vector = Make(config, c.num_envs, c.num_threads);
  OneByOne single(config, c.num_envs);
  Actions actions(*vector);
  vector->Reset();
  for (int i = 0; i < c.num_envs; ++i) {
    ASSERT_EQ(OneByOne::Row(vector->observations(), i, vector->spec().observation_size),
              single.first_observations()[i]);
  }
  for (int t = 0; t < c.steps && !HasFailure(); ++t) {
    const auto a = actions.Next();
    vector->Step(a);
    for (int i = 0; i < c.num_envs; ++i) single.StepAndCompare(i, a, *vector);
  }
  EXPECT_GT(single.ends(), c.num_envs);
}

INSTANTIATE_TEST_SUITE_P(
    Counts, Threads,
    testing::Values(ThreadsCase{"OneThread", "Hopper-v5", 0, 5, 1, 120},
                    ThreadsCase{"TwoThreads", "Hopper-v5", 0, 5, 2, 120},
                    ThreadsCase{"FourThreads", "Hopper-v5", 0, 37, 4, 60},
                    ThreadsCase{"FourThreadsWithContactForces", "Ant-v5", 20, 4, 4, 50},
                    ThreadsCase{"MoreThreadsThanEnvironments", "CartPole-v1", 0, 3, 8, 300},
                    ThreadsCase{"ManyShortSteps", "Pendulum-v1", 50, 64, 4, 2000}),
    [](const auto& info) { return info.param.name; });

TEST(VectorEnv, AnotherSeedGivesOtherEpisodes) {
  const auto a = Make(Config("Pendulum-v1"), 4, 1, 1), b = Make(Config("Pendulum-v1"), 4, 1, 2);
  a->Reset();
  b->Reset();
  EXPECT_NE(a->observations(), b->observations());
}

TEST(VectorEnv, EnvironmentsAndEpisodesHaveSeedsOfTheirOwn) {
  std::set<uint64_t> seeds;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    for (int env = 0; env < 50; ++env) {
      for (int episode = 0; episode < 50; ++episode) {
        seeds.insert(VectorEnv::EpisodeSeed(seed, env, episode));
      }
    }
  }
  EXPECT_EQ(seeds.size(), 4 * 50 * 50);
}

TEST(VectorEnv, ResetStartsNewEpisodesEverywhere) {
  const auto envs = Make(Config("Pendulum-v1", 10), 2, 1);
  Actions actions(*envs);
  envs->Reset();
  const std::vector<float> first(envs->observations().begin(), envs->observations().end());
  for (int t = 0; t < 5; ++t) envs->Step(actions.Next());
  envs->Reset();
  EXPECT_NE(envs->observations(), absl::MakeConstSpan(first));
  for (int t = 1; t <= 10; ++t) {
    envs->Step(actions.Next());
    EXPECT_THAT(envs->truncated(), testing::Each(t == 10));
  }
  EXPECT_THAT(envs->episode_lengths(), testing::Each(10));
}

TEST(VectorEnv, CanBeDroppedWithoutAStep) { Make(Config("Pendulum-v1"), 4, 4); }

TEST(VectorEnv, RefusesNoEnvironmentsAndNoThreads) {
  EXPECT_EQ(VectorEnv::Make(Config("Pendulum-v1"), "", 0, 1, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(VectorEnv::Make(Config("Pendulum-v1"), "", 1, 0, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(VectorEnv, PassesOnWhatIsWrongWithTheEnvironment) {
  EXPECT_EQ(VectorEnv::Make(Config("Pendulum-v9"), "", 1, 1, 1).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace troupe
