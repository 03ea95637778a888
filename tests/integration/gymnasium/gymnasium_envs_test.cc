// Environments in Python, those of worlds.py.
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "actor/row_packer.h"
#include "actor/vector_env.h"
#include "common/layout.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kSeed = 7;
// Orders of worlds.py.
enum Order { kObey, kRaise, kExit, kHang, kNan, kShape, kDtype, kOldStep, kTerminate, kTruncate };

proto::Environment Config(const std::string& id, const std::string& kwargs = "{}") {
  proto::Environment config;
  config.mutable_gymnasium()->set_id(id);
  config.mutable_gymnasium()->set_kwargs_json(kwargs);
  config.mutable_gymnasium()->set_module("worlds");
  return config;
}

std::unique_ptr<VectorEnv> Make(const proto::Environment& config, int num_envs) {
  auto envs = VectorEnv::Make(config, "", num_envs, 1, kSeed);
  if (!envs.ok()) {
    ADD_FAILURE() << envs.status();
    std::abort();
  }
  return *std::move(envs);
}

absl::Status MakeError(const proto::Environment& config) {
  return VectorEnv::Make(config, "", 2, 1, kSeed).status();
}

// The seed that Python is given for an episode; those behind it have none of their own.
float Seed(int env, int episode) {
  return static_cast<float>(VectorEnv::EpisodeSeed(kSeed, env, episode) & 0x7fffffff);
}

std::vector<float> Shown(const VectorEnv& envs, int env) {
  const auto row =
      envs.observations().subspan(env * envs.spec().observation_size, envs.spec().observation_size);
  return {row.begin(), row.end()};
}

std::vector<float> Led(const VectorEnv& envs, int env) {
  const auto row = envs.next_observations().subspan(env * envs.spec().observation_size,
                                                    envs.spec().observation_size);
  return {row.begin(), row.end()};
}

// Steps `env` of Counter alone with this order.
void StepOne(VectorEnv& envs, int env, float order) {
  std::vector<float> actions(envs.num_envs());
  actions[env] = order;
  envs.Begin({env}, actions);
  while (envs.Finish().empty()) continue;
}

TEST(GymnasiumEnvs, StepsAndEndsAsTheEnvironmentSays) {
  const auto envs = Make(Config("Counter-v0"), 3);
  envs->Reset();
  EXPECT_EQ(envs->spec().observation_size, 3);
  EXPECT_THAT(envs->spec().action_low, ElementsAre(-100));
  EXPECT_THAT(Shown(*envs, 2), ElementsAre(0, Seed(2, 0), 0));

  envs->Step({0.5f, kTerminate, kTruncate});
  EXPECT_THAT(Led(*envs, 0), ElementsAre(1, Seed(0, 0), 0.5f));
  EXPECT_THAT(Shown(*envs, 0), ElementsAre(1, Seed(0, 0), 0.5f));
  EXPECT_THAT(Led(*envs, 1), ElementsAre(1, Seed(1, 0), kTerminate));
  EXPECT_THAT(Shown(*envs, 1), ElementsAre(0, Seed(1, 0) + 0.5f, 0));
  EXPECT_THAT(envs->terminated(), ElementsAre(0, 1, 0));
  EXPECT_THAT(envs->truncated(), ElementsAre(0, 0, 1));
  EXPECT_THAT(envs->rewards(), ElementsAre(1, 1, 1));

  envs->Step({kTerminate, 0, 0});
  EXPECT_THAT(envs->episode_returns(), ElementsAre(1 + 2, 0, 0));
  EXPECT_THAT(envs->episode_lengths(), ElementsAre(2, 0, 0));
  EXPECT_THAT(envs->lost(), ElementsAre(0, 0, 0));
}

TEST(GymnasiumEnvs, TruncatesAtMaxEpisodeSteps) {
  proto::Environment config = Config("Counter-v0");
  config.set_max_episode_steps(2);
  const auto envs = Make(config, 1);
  EXPECT_EQ(envs->spec().max_episode_steps, 2);
  envs->Reset();
  envs->Step({0});
  EXPECT_THAT(envs->truncated(), ElementsAre(0));
  envs->Step({0});
  EXPECT_THAT(envs->truncated(), ElementsAre(1));
  EXPECT_THAT(envs->terminated(), ElementsAre(0));
}

TEST(GymnasiumEnvs, ResetBeginsNewEpisodesEverywhere) {
  const auto envs = Make(Config("Counter-v0"), 2);
  envs->Reset();
  envs->Step({0, 0});
  envs->Reset();
  EXPECT_THAT(Shown(*envs, 0), ElementsAre(0, Seed(0, 1), 0));
  EXPECT_THAT(Shown(*envs, 1), ElementsAre(0, Seed(1, 1), 0));
}

TEST(GymnasiumEnvs, ObservationsOfEverySpaceBecomeColumns) {
  const auto envs = Make(Config("Mixed-v0"), 1);
  const EnvSpec& spec = envs->spec();
  EXPECT_THAT(spec.num_choices, ElementsAre(3, 4));
  const auto layout = Layout::FromProto(MakeLayout(spec));
  ASSERT_TRUE(layout.ok()) << layout.status();
  std::vector<std::string> names;
  for (const ColumnLayout& column : layout->columns()) names.push_back(column.name);
  EXPECT_THAT(names, ElementsAre("observation.arm.held", "observation.arm.joints",
                                 "observation.pair.0", "observation.pair.1", "observation.camera",
                                 "observation.depth", "action", "reward"));
  EXPECT_THAT(layout->Find("observation.camera")->shape, ElementsAre(4, 5, 3));
  EXPECT_THAT(layout->Find("observation.depth")->shape, ElementsAre(4, 5, 1));
  EXPECT_EQ(layout->Find("observation.depth")->dtype, proto::UINT8);

  envs->Reset();
  envs->Step({1, 3});  // shows 4
  EXPECT_THAT(Shown(*envs, 0), ElementsAre(0, 1, 0, 4, 0.25, 0.5, 0.75, 1, 0, 0, 1, 0, 1, 0));
  const absl::Span<const uint8_t> images = envs->images(0);
  ASSERT_EQ(images.size(), 60u + 20u);
  EXPECT_THAT(images.first(60), testing::Each(4));
  EXPECT_EQ(images[60], 4);
  EXPECT_EQ(images[79], 19 + 4);
  EXPECT_EQ(envs->next_images(0), images);
}

TEST(GymnasiumEnvs, ActionsOfPartsAreOneVector) {
  const auto boxes = Make(Config("Parts-v0"), 1);
  EXPECT_THAT(boxes->spec().action_low, ElementsAre(-1, -1, -1, -1, 0));
  EXPECT_THAT(boxes->spec().action_high, ElementsAre(1, 1, 1, 1, 5));
  boxes->Reset();
  boxes->Step({0.5f, 0.25f, 0, 0, 3});
  EXPECT_THAT(Shown(*boxes, 0), ElementsAre(1, 0.75f, 3));

  const auto choices = Make(Config("Choices-v0"), 1);
  EXPECT_THAT(choices->spec().num_choices, ElementsAre(3, 2, 2, 2, 4));
  choices->Reset();
  choices->Step({2, 1, 1, 0, 3});
  EXPECT_THAT(Shown(*choices, 0), ElementsAre(7, 2, 3));

  EXPECT_THAT(MakeError(Config("Both-v0")).message(), HasSubstr("numbers and choices at once"));
}

// A vector environment of one mode of autoreset.
class OwnVector : public testing::TestWithParam<std::string> {
 protected:
  static proto::Environment Config(const std::string& more = "") {
    proto::Environment config =
        troupe::Config("Counters-v0", "{\"mode\": \"" + GetParam() + "\"" + more + "}");
    config.mutable_gymnasium()->set_vector(true);
    config.mutable_gymnasium()->set_envs_per_child(3);
    return config;
  }
};

// Steps whatever is not in a step, until some of that is done, which is returned.
std::vector<int> StepIdle(VectorEnv& envs, std::vector<int>& idle,
                          const std::vector<float>& actions) {
  envs.Begin(idle, actions);
  absl::Span<const int> done = envs.Finish();
  while (done.empty()) done = envs.Finish();
  idle.assign(done.begin(), done.end());
  return idle;
}

TEST_P(OwnVector, HasTheRowsOfSingleEnvironments) {
  const auto envs = Make(Config(), 3);
  envs->Reset();
  const float first = Shown(*envs, 0)[1];
  EXPECT_THAT(Shown(*envs, 2), ElementsAre(0, first, 0));
  envs->Step({0.5f, 0.5f, 0.5f});
  // Environment 1 ends, and is done when its next episode has begun: with the others' next step in
  // one mode.  It is not begun before.
  envs->Begin({0, 1, 2}, {0.5f, kTerminate, 0.5f});
  std::vector<int> steps(3);
  while (steps[1] < 3 || steps[0] < 5) {
    const absl::Span<const int> done = envs->Finish();
    const std::vector<int> again(done.begin(), done.end());
    for (const int env : again) {
      ++steps[env];
      if (env == 1 && steps[1] == 1) {
        EXPECT_THAT(Led(*envs, 1), ElementsAre(2, first, kTerminate));
        EXPECT_THAT(Shown(*envs, 1), ElementsAre(0, first + 1, 0));
        EXPECT_EQ(envs->terminated()[1], 1);
        EXPECT_EQ(envs->truncated()[1], 0);
        EXPECT_EQ(envs->rewards()[1], 2);
        EXPECT_EQ(envs->episode_returns()[1], 1 + 2);
        EXPECT_EQ(envs->episode_lengths()[1], 2);
      } else {
        const float step = static_cast<float>(env == 1 ? steps[1] - 1 : steps[env] + 1);
        EXPECT_THAT(Led(*envs, env), ElementsAre(step, env == 1 ? first + 1 : first, 0.5f));
        EXPECT_EQ(envs->rewards()[env], step);
        EXPECT_EQ(envs->terminated()[env], 0);
      }
    }
    envs->Begin(again, {0.5f, 0.5f, 0.5f});
  }
}

TEST_P(OwnVector, WhoseEpisodesAllEndAtOnceGoesOn) {
  const auto envs = Make(Config(), 3);
  envs->Reset();
  const float first = Shown(*envs, 0)[1];
  for (int episode = 1; episode <= 3; ++episode) {
    envs->Step({kTruncate, kTruncate, kTerminate});
    EXPECT_THAT(envs->truncated(), ElementsAre(1, 1, 0));
    EXPECT_THAT(envs->terminated(), ElementsAre(0, 0, 1));
    EXPECT_THAT(envs->rewards(), ElementsAre(1, 1, 1));
    EXPECT_THAT(Led(*envs, 0), ElementsAre(1, first + episode - 1, kTruncate));
    EXPECT_THAT(Shown(*envs, 0), ElementsAre(0, first + episode, 0));
  }
}

TEST_P(OwnVector, EndsItsEpisodesAtMaxEpisodeSteps) {
  proto::Environment config = Config();
  config.set_max_episode_steps(2);
  const auto envs = Make(config, 3);
  EXPECT_EQ(envs->spec().max_episode_steps, 2);
  envs->Reset();
  envs->Step({0, 0, 0});
  EXPECT_THAT(envs->truncated(), ElementsAre(0, 0, 0));
  envs->Step({0, 0, 0});
  EXPECT_THAT(envs->truncated(), ElementsAre(1, 1, 1));
}

TEST_P(OwnVector, ThatFailsCostsItsEpisodes) {
  const auto envs = Make(Config(), 6);  // two children of three
  envs->Reset();
  envs->Step({0, 0, 0, 0, 0, 0});
  envs->Step({kRaise, 0, 0, 0, 0, 0});
  EXPECT_THAT(envs->lost(), ElementsAre(1, 1, 1, 0, 0, 0));
  EXPECT_EQ(envs->faults().crashes, 1);
  envs->Step({kTruncate, kTruncate, kTruncate, kTruncate, kTruncate, kTruncate});
  EXPECT_THAT(envs->episode_lengths(), ElementsAre(1, 1, 1, 3, 3, 3));
}

TEST_P(OwnVector, OfAWrongShapeIsRefused) {
  EXPECT_TRUE(MakeError(Config(R"(, "wrong": "shape")")).ok());
  const auto envs = Make(Config(R"(, "wrong": "shape")"), 3);
  envs->Reset();
  envs->Step({0, 0, 0});
  EXPECT_EQ(envs->faults().crashes, 1);
}

INSTANTIATE_TEST_SUITE_P(Modes, OwnVector, testing::Values("NEXT_STEP", "SAME_STEP", "DISABLED"),
                         [](const auto& info) { return info.param; });

TEST(GymnasiumEnvs, AVectorEnvironmentThatCannotBeUsedIsRefusedWithTheReason) {
  proto::Environment config = Config("Counter-v0");
  config.mutable_gymnasium()->set_vector(true);
  EXPECT_THAT(MakeError(config).message(), HasSubstr("has no vector_entry_point"));
  config = Config("Counters-v0", R"({"mode": ""})");
  config.mutable_gymnasium()->set_vector(true);
  EXPECT_THAT(MakeError(config).message(), HasSubstr("metadata['autoreset_mode'] is None"));
}

TEST(GymnasiumEnvs, GymnasiumsOwnVectorOfCartPolesIsSteppedLikeOnesOfOurs) {
  proto::Environment config = Config("CartPole-v1");
  config.mutable_gymnasium()->set_vector(true);
  config.mutable_gymnasium()->set_envs_per_child(4);
  const auto envs = Make(config, 4);
  EXPECT_EQ(envs->spec().max_episode_steps, 500);
  EXPECT_THAT(envs->spec().num_choices, ElementsAre(2));
  envs->Reset();
  int episodes = 0;
  std::vector<int> idle = {0, 1, 2, 3};
  while (episodes < 60) {
    for (const int env : StepIdle(*envs, idle, {1, 0, 1, 0})) {
      EXPECT_EQ(envs->rewards()[env], 1);
      if (envs->terminated()[env] == 0) continue;
      ++episodes;
      EXPECT_GT(std::abs(Led(*envs, env)[2]), 0.2f);     // has fallen
      EXPECT_LT(std::abs(Shown(*envs, env)[2]), 0.06f);  // stands
      EXPECT_EQ(envs->episode_returns()[env], static_cast<double>(envs->episode_lengths()[env]));
      EXPECT_THAT(envs->episode_lengths()[env], testing::AllOf(testing::Ge(8), testing::Le(12)));
    }
  }
}

// One of four environments goes wrong.
class Fault : public testing::TestWithParam<Order> {
 protected:
  static int64_t Count(const VectorEnv::Faults& faults) {
    switch (GetParam()) {
      case kHang:
        return faults.timeouts;
      case kNan:
        return faults.invalid;
      default:
        return faults.crashes;
    }
  }
};

TEST_P(Fault, CostsTheEpisodesOfItsChildAndNothingElse) {
  proto::Environment config = Config("Counter-v0");
  if (GetParam() == kHang) config.mutable_gymnasium()->set_step_timeout_ms(2000);
  const auto envs = Make(config, 4);  // two children of two
  envs->Reset();
  envs->Step({0, 0, 0, 0});
  envs->Begin({0, 1, 2, 3}, {static_cast<float>(GetParam()), 0, 0, 0});
  std::multiset<int> lost, stepped;
  while (lost.count(0) == 0 || stepped.size() < 2) {
    for (const int env : envs->Finish()) (envs->lost()[env] ? lost : stepped).insert(env);
  }
  EXPECT_EQ(stepped.count(2) + stepped.count(3), 2u);
  EXPECT_EQ(lost.count(2) + lost.count(3), 0u);
  EXPECT_EQ(Count(envs->faults()), 1);
  EXPECT_EQ(envs->faults().crashes + envs->faults().timeouts + envs->faults().invalid, 1);
  EXPECT_THAT(Shown(*envs, 0), ElementsAre(0, Seed(0, 1), 0));
  EXPECT_THAT(envs->episode_lengths(), ElementsAre(0, 0, 0, 0));
  // Everything goes on, and the lost episode's rewards are in no sum.
  while (lost.count(1) == 0) {
    for (const int env : envs->Finish()) lost.insert(env);
  }
  envs->Step({kTerminate, kTerminate, kTerminate, kTerminate});
  EXPECT_THAT(envs->episode_lengths(), ElementsAre(1, 1, 3, 3));
}

std::string OrderName(const testing::TestParamInfo<Order>& info) {
  const std::vector<std::string> names = {"Obey", "Raise", "Exit",  "Hang",
                                          "Nan",  "Shape", "Dtype", "OldStep"};
  return names[info.param];
}

INSTANTIATE_TEST_SUITE_P(Orders, Fault,
                         testing::Values(kRaise, kExit, kHang, kNan, kShape, kDtype, kOldStep),
                         OrderName);

TEST(GymnasiumEnvs, AChildThatFailsInItsResetIsReplaced) {
  const auto envs = Make(Config("Lazy-v0"), 1);
  envs->Reset();
  for (int i = 0; i < 3; ++i) {
    StepOne(*envs, 0, kTerminate);
    EXPECT_THAT(envs->lost(), ElementsAre(1));
  }
  EXPECT_EQ(envs->faults().crashes, 3);
}

TEST(GymnasiumEnvs, OneThatTakesLongDoesNotHoldUpTheRest) {
  // The other child's environments step thousands of times meanwhile.
  const auto envs = Make(Config("Counter-v0"), 4);
  envs->Reset();
  envs->Begin({0, 1, 2, 3}, {kHang, 0, 0, 0});
  int steps = 0;
  while (steps < 1000) {
    const auto done = envs->Finish();
    std::vector<int> again(done.begin(), done.end());
    ASSERT_THAT(again, testing::Not(testing::Contains(0)));
    steps += static_cast<int>(again.size());
    envs->Begin(again, {0, 0, 0, 0});
  }
}

TEST(GymnasiumEnvs, WhatCannotBeStartedIsSaidInPythonsWords) {
  EXPECT_THAT(MakeError(Config("NoSuchWorld-v0")).message(),
              testing::AllOf(HasSubstr("environments 0 to 1 of NoSuchWorld-v0"),
                             HasSubstr("NameNotFound")));
  proto::Environment no_module = Config("Counter-v0");
  no_module.mutable_gymnasium()->set_module("no_such_module");
  EXPECT_THAT(MakeError(no_module).message(), HasSubstr("No module named 'no_such_module'"));
  proto::Environment no_python = Config("Counter-v0");
  no_python.mutable_gymnasium()->set_python("/no/such/python");
  EXPECT_THAT(MakeError(no_python).message(), HasSubstr("/no/such/python"));
  EXPECT_THAT(MakeError(Config("Counter-v0", R"({"weight": 1})")).message(),
              HasSubstr("unexpected keyword argument 'weight'"));
  EXPECT_THAT(MakeError(Config("Words-v0")).message(),
              HasSubstr("observation is in a space of Text"));
  EXPECT_EQ(MakeError(Config("Words-v0")).code(), absl::StatusCode::kInvalidArgument);
}

// As the evaluator uses them.
TEST(GymnasiumEnv, StepsAloneAndEndsTheEpisodeAtAFault) {
  auto made = MakeEnv(Config("Counter-v0"), "");
  ASSERT_TRUE(made.ok()) << made.status();
  Env& env = **made;
  std::vector<double> observation(3);
  env.Reset(5, absl::MakeSpan(observation));
  EXPECT_THAT(observation, ElementsAre(0, 5, 0));
  EXPECT_EQ(env.Step({0.25}, absl::MakeSpan(observation)).reward, 1);
  EXPECT_THAT(observation, ElementsAre(1, 5, 0.25));
  for (const Order order : {kRaise, kNan}) {
    const StepResult lost = env.Step({static_cast<double>(order)}, absl::MakeSpan(observation));
    EXPECT_TRUE(lost.truncated);
    EXPECT_EQ(lost.reward, 0);
    EXPECT_EQ(observation[1], 5);
    env.Reset(5, absl::MakeSpan(observation));
  }
  EXPECT_TRUE(env.Step({kTerminate}, absl::MakeSpan(observation)).terminated);
  EXPECT_EQ(env.ResetToState({1}, absl::MakeSpan(observation)).code(),
            absl::StatusCode::kUnimplemented);
}

TEST(GymnasiumEnv, ShowsTheImagesOfItsLastObservation) {
  auto env = MakeEnv(Config("Mixed-v0"), "");
  ASSERT_TRUE(env.ok()) << env.status();
  std::vector<double> observation((*env)->spec().observation_size);
  (*env)->Reset(1, absl::MakeSpan(observation));
  EXPECT_EQ((*env)->images()[0], 0);
  (*env)->Step({2, 1}, absl::MakeSpan(observation));
  EXPECT_EQ((*env)->images()[0], 3);
}

}  // namespace
}  // namespace troupe
