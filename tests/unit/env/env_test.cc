#include "actor/env.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

proto::Environment Config(const std::string& text) {
  proto::Environment config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config)) << text;
  return config;
}

std::unique_ptr<Env> Make(const std::string& text) {
  auto env = MakeEnv(Config(text), DefaultAssetDir());
  EXPECT_TRUE(env.ok()) << env.status();
  return env.ok() ? *std::move(env) : nullptr;
}

absl::Status MakeError(const std::string& text) {
  return MakeEnv(Config(text), DefaultAssetDir()).status();
}

std::vector<double> ResetOf(Env* env, uint64_t seed) {
  std::vector<double> observation(env->spec().observation_size);
  env->Reset(seed, absl::MakeSpan(observation));
  return observation;
}

// An environment at a given state, stepped with one action after another.
class Stepper {
 public:
  Stepper(const std::string& config, const std::vector<double>& state) : env_(Make(config)) {
    observation_.resize(env_->spec().observation_size);
    EXPECT_TRUE(env_->ResetToState(state, absl::MakeSpan(observation_)).ok());
  }
  StepResult Step(const std::vector<double>& action) {
    return env_->Step(action, absl::MakeSpan(observation_));
  }
  const std::vector<double>& observation() const { return observation_; }

 private:
  std::unique_ptr<Env> env_;
  std::vector<double> observation_;
};

struct SpecCase {
  std::string id;
  int64_t observation_size, action_size;
  double bound;  // of every action element; 0 for discrete tasks
  int64_t num_choices, max_episode_steps;
};

void PrintTo(const SpecCase& c, std::ostream* out) { *out << c.id; }

class Specs : public testing::TestWithParam<SpecCase> {};

TEST_P(Specs, AreGymnasiums) {
  const SpecCase& c = GetParam();
  const auto env = Make("id: '" + c.id + "'");
  const EnvSpec& spec = env->spec();
  EXPECT_EQ(spec.id, c.id);
  EXPECT_EQ(spec.observation_size, c.observation_size);
  EXPECT_EQ(spec.action_size, c.action_size);
  EXPECT_EQ(spec.num_choices,
            c.num_choices == 0 ? std::vector<int64_t>{} : std::vector<int64_t>{c.num_choices});
  EXPECT_EQ(spec.max_episode_steps, c.max_episode_steps);
  const std::vector<double> high(c.num_choices > 0 ? 0 : c.action_size, c.bound);
  EXPECT_EQ(spec.action_high, high);
  EXPECT_EQ(spec.action_low.size(), high.size());
  for (const double low : spec.action_low) EXPECT_EQ(low, -c.bound);
}

INSTANTIATE_TEST_SUITE_P(
    All, Specs,
    testing::Values(
        SpecCase{"Acrobot-v1", 6, 1, 0, 3, 500}, SpecCase{"Ant-v5", 105, 8, 1, 0, 1000},
        SpecCase{"CartPole-v1", 4, 1, 0, 2, 500}, SpecCase{"HalfCheetah-v5", 17, 6, 1, 0, 1000},
        SpecCase{"Hopper-v5", 11, 3, 1, 0, 1000}, SpecCase{"Humanoid-v5", 348, 17, 0.4f, 0, 1000},
        SpecCase{"HumanoidStandup-v5", 348, 17, 0.4f, 0, 1000},
        SpecCase{"InvertedDoublePendulum-v5", 9, 1, 1, 0, 1000},
        SpecCase{"InvertedPendulum-v5", 4, 1, 3, 0, 1000},
        SpecCase{"MountainCarContinuous-v0", 2, 1, 1, 0, 999},
        SpecCase{"Pendulum-v1", 3, 1, 2, 0, 200}, SpecCase{"Pusher-v5", 23, 7, 2, 0, 100},
        SpecCase{"Reacher-v5", 10, 2, 1, 0, 50}, SpecCase{"Swimmer-v5", 8, 2, 1, 0, 1000},
        SpecCase{"Walker2d-v5", 17, 6, 1, 0, 1000}),
    [](const auto& info) { return info.param.id.substr(0, info.param.id.find('-')); });

TEST(KnownEnvIds, AreSortedAndCanAllBeMade) {
  const std::vector<std::string> ids = KnownEnvIds();
  EXPECT_EQ(ids.size(), 15);
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
  for (const std::string& id : ids) EXPECT_TRUE(MakeError("id: '" + id + "'").ok()) << id;
}

TEST(Options, ChangeTheObservation) {
  EXPECT_EQ(Make("id: 'Ant-v5' include_cfrc_ext_in_observation: false")->spec().observation_size,
            27);
  EXPECT_EQ(Make("id: 'Humanoid-v5' exclude_current_positions_from_observation: false "
                 "include_cvel_in_observation: false")
                ->spec()
                .observation_size,
            350 - 78);
}

// What is left of `state`'s observation, which must be what is seen with velocities but for them.
std::vector<double> WithoutVelocities(const std::string& config, const std::vector<double>& state) {
  const auto env = Make(config + " hide_velocities: true");
  std::vector<double> observation(env->spec().observation_size);
  EXPECT_TRUE(env->ResetToState(state, absl::MakeSpan(observation)).ok());
  return observation;
}

TEST(Options, VelocitiesCanBeHiddenAndNothingElse) {
  const float x = 0.1f, theta = 0.2f;
  EXPECT_THAT(WithoutVelocities("id: 'CartPole-v1'", {x, 7, theta, 8}), ElementsAre(x, theta));
  EXPECT_THAT(WithoutVelocities("id: 'Pendulum-v1'", {0, 7}), ElementsAre(1, 0));
  EXPECT_THAT(WithoutVelocities("id: 'MountainCarContinuous-v0'", {-0.5, 0.01}), ElementsAre(-0.5));
  EXPECT_THAT(WithoutVelocities("id: 'Acrobot-v1'", {0, 0, 7, 8}), ElementsAre(1, 0, 1, 0));
  EXPECT_THAT(WithoutVelocities("id: 'InvertedPendulum-v5'", {0.25, 0.5, 7, 8}),
              ElementsAre(0.25, 0.5));
}

TEST(Options, EveryTaskKeepsWhatIsNoVelocity) {
  const std::pair<const char*, int64_t> sizes[] = {{"Ant-v5", 105 - 14},
                                                   {"HalfCheetah-v5", 8},
                                                   {"Hopper-v5", 5},
                                                   {"Humanoid-v5", 348 - 23 - 78},
                                                   {"HumanoidStandup-v5", 348 - 23 - 78},
                                                   {"InvertedDoublePendulum-v5", 6},
                                                   {"Pusher-v5", 23 - 7},
                                                   {"Reacher-v5", 8},
                                                   {"Swimmer-v5", 3},
                                                   {"Walker2d-v5", 8}};
  for (const auto& [id, size] : sizes) {
    const auto env = Make(absl::StrCat("hide_velocities: true id: '", id, "'"));
    EXPECT_EQ(env->spec().observation_size, size) << id;
    std::vector<double> observation(size + 1, 17);  // with a guard behind it
    env->Reset(1, absl::MakeSpan(observation).first(size));
    env->Step(std::vector<double>(env->spec().action_size),
              absl::MakeSpan(observation).first(size));
    EXPECT_EQ(observation.back(), 17) << id;
  }
}

TEST(Options, MaxEpisodeStepsReplacesTheRegisteredOne) {
  EXPECT_EQ(Make("id: 'Pendulum-v1' max_episode_steps: 7")->spec().max_episode_steps, 7);
}

TEST(Errors, AnUnknownIdNamesTheNearestKnownOne) {
  const absl::Status status = MakeError("id: 'HalfCheeta-v4'");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("\"HalfCheeta-v4\""));
  EXPECT_THAT(status.message(), HasSubstr("\"HalfCheetah-v5\""));
}

TEST(Errors, EveryKeywordThatTheIdLacksIsNamed) {
  const absl::Status status =
      MakeError("id: 'Swimmer-v5' ctrl_cost_weight: 1 healthy_reward: 1 g: 9.81");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("Swimmer-v5 does not have the keywords"));
  EXPECT_THAT(status.message(), HasSubstr("keywords healthy_reward, g;"));
}

TEST(Errors, ClassicTasksRefuseKeywordsToo) {
  EXPECT_EQ(MakeError("id: 'Acrobot-v1' frame_skip: 2").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MakeError("id: 'Acrobot-v1' frame_skip: 2").message(), HasSubstr("it has none"));
}

TEST(Errors, AMissingModelFileIsNamed) {
  const auto env = MakeEnv(Config("id: 'Hopper-v5'"), "/nowhere");
  EXPECT_EQ(env.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(env.status().message(), HasSubstr("/nowhere/hopper.xml"));
}

TEST(Errors, AModelThatDoesNotCompileIsNamed) {
  const std::string path = testing::TempDir() + "/broken.xml";
  std::ofstream(path) << "<mujoco><worldbody><bogus/></worldbody></mujoco>";
  const absl::Status status = MakeError("id: 'Hopper-v5' xml_file: '" + path + "'");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr(path));
  EXPECT_THAT(status.message(), HasSubstr("bogus"));
}

TEST(Errors, AModelThatTheTaskCannotReadIsRefused) {
  EXPECT_THAT(MakeError("id: 'Humanoid-v5' xml_file: 'inverted_pendulum.xml'").message(),
              HasSubstr("nq=2"));
  EXPECT_THAT(MakeError("id: 'Pusher-v5' xml_file: 'humanoid.xml'").message(),
              HasSubstr("\"tips_arm\""));
  EXPECT_THAT(MakeError("id: 'Ant-v5' main_body: 14").message(), HasSubstr("bodies 0 to 13"));
}

TEST(Errors, AStateOfTheWrongSizeNamesBothSizes) {
  const auto env = Make("id: 'Hopper-v5'");
  std::vector<double> observation(11);
  const absl::Status status = env->ResetToState({1, 2, 3}, absl::MakeSpan(observation));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("12 numbers; got 3"));
}

TEST(AssetDir, ComesFromTheEnvironmentVariableIfSet) {
  EXPECT_THAT(DefaultAssetDir(), HasSubstr("assets"));
  setenv("TROUPE_ASSET_DIR", "/my/models", 1);
  EXPECT_EQ(DefaultAssetDir(), "/my/models");
  unsetenv("TROUPE_ASSET_DIR");
  EXPECT_THAT(DefaultAssetDir(), Not(HasSubstr("/my/models")));
}

TEST(Reset, IsTheSameForTheSameSeedOnly) {
  for (const std::string& id : KnownEnvIds()) {
    const auto a = Make("id: '" + id + "'"), b = Make("id: '" + id + "'");
    EXPECT_EQ(ResetOf(a.get(), 5), ResetOf(b.get(), 5)) << id;
    EXPECT_NE(ResetOf(a.get(), 5), ResetOf(b.get(), 6)) << id;
    EXPECT_EQ(ResetOf(a.get(), 5), ResetOf(b.get(), 5)) << id;  // nothing is left of the last
  }
}

TEST(Reset, ForgetsTheEpisodeBefore) {
  const auto used = Make("id: 'Walker2d-v5'"), fresh = Make("id: 'Walker2d-v5'");
  std::vector<double> a = ResetOf(used.get(), 1), b(17);
  const std::vector<double> action(6, 0.7);
  for (int t = 0; t < 30; ++t) used->Step(action, absl::MakeSpan(a));
  a = ResetOf(used.get(), 9);
  b = ResetOf(fresh.get(), 9);
  for (int t = 0; t < 10; ++t) {
    used->Step(action, absl::MakeSpan(a));
    fresh->Step(action, absl::MakeSpan(b));
  }
  EXPECT_EQ(a, b);
}

TEST(Ends, TruncationComesAtTheLimitAndIsNoTermination) {
  Stepper pendulum("id: 'Pendulum-v1' max_episode_steps: 3", {0.1, 0});
  for (int t = 1; t <= 3; ++t) {
    const StepResult result = pendulum.Step({0});
    EXPECT_FALSE(result.terminated);
    EXPECT_EQ(result.truncated, t == 3);
  }
}

// The pole leaves 12 degrees at the first step.
TEST(Ends, TerminationIsNoTruncation) {
  const StepResult result = Stepper("id: 'CartPole-v1'", {0, 0, 0.2, 3}).Step({1});
  EXPECT_TRUE(result.terminated);
  EXPECT_FALSE(result.truncated);
}

TEST(Ends, BothFlagsAreSetWhereBothHappen) {
  const StepResult result =
      Stepper("id: 'CartPole-v1' max_episode_steps: 1", {0, 0, 0.2, 3}).Step({1});
  EXPECT_TRUE(result.terminated);
  EXPECT_TRUE(result.truncated);
}

TEST(Ends, TheLimitCountsFromTheLastReset) {
  const auto env = Make("id: 'Pendulum-v1' max_episode_steps: 2");
  std::vector<double> observation = ResetOf(env.get(), 1);
  const std::vector<double> action = {0.0};
  EXPECT_FALSE(env->Step(action, absl::MakeSpan(observation)).truncated);
  ASSERT_TRUE(env->ResetToState({0, 0}, absl::MakeSpan(observation)).ok());
  EXPECT_FALSE(env->Step(action, absl::MakeSpan(observation)).truncated);
  EXPECT_TRUE(env->Step(action, absl::MakeSpan(observation)).truncated);
}

TEST(Ends, AnUnhealthyRobotGoesOnIfAsked) {
  std::vector<double> fallen(12, 0.0);
  fallen[1] = 0.3;  // torso height, m
  EXPECT_TRUE(Stepper("id: 'Hopper-v5'", fallen).Step({0, 0, 0}).terminated);
  EXPECT_FALSE(Stepper("id: 'Hopper-v5' terminate_when_unhealthy: false", fallen)
                   .Step({0, 0, 0})
                   .terminated);
}

// By hand: 15 sin(0) + 3 * 2 clipped from 5, times 0.05 s.
TEST(Formulas, PendulumClipsTorqueAndChargesForIt) {
  Stepper pendulum("id: 'Pendulum-v1'", {0, 0});
  EXPECT_DOUBLE_EQ(pendulum.Step({5}).reward, -0.001 * 4);
  EXPECT_NEAR(pendulum.observation()[2], 0.3, 1e-7);
  EXPECT_NEAR(pendulum.observation()[1], std::sin(0.3 * 0.05), 1e-7);
}

TEST(Formulas, MountainCarChargesForTheUnclippedAction) {
  Stepper car("id: 'MountainCarContinuous-v0'", {-0.5, 0});
  EXPECT_DOUBLE_EQ(car.Step({2}).reward, -0.4);
  EXPECT_NEAR(car.observation()[1], 0.0015 - 0.0025 * std::cos(1.5), 1e-9);
}

TEST(Formulas, MountainCarPaysAtTheGoal) {
  const StepResult result = Stepper("id: 'MountainCarContinuous-v0'", {0.44, 0.05}).Step({1});
  EXPECT_TRUE(result.terminated);
  EXPECT_DOUBLE_EQ(result.reward, 100 - 0.1);
}

TEST(Formulas, SuttonAndBartoRewardOnlyTheFall) {
  const std::string config = "id: 'CartPole-v1' sutton_barto_reward: true";
  EXPECT_EQ(Stepper(config, {0, 0, 0, 0}).Step({1}).reward, 0);
  EXPECT_EQ(Stepper(config, {0, 0, 0.2, 3}).Step({1}).reward, -1);
}

TEST(Formulas, MujocoClipsControlsButTheirCostIsOfTheAction) {
  const std::vector<double> state(18, 0.0);
  Stepper inside("id: 'HalfCheetah-v5'", state), outside("id: 'HalfCheetah-v5'", state);
  const StepResult a = inside.Step(std::vector<double>(6, 1.0));
  const StepResult b = outside.Step(std::vector<double>(6, 2.0));
  EXPECT_EQ(inside.observation(), outside.observation());
  EXPECT_NEAR(a.reward - b.reward, 0.1 * 6 * (4 - 1), 1e-12);
}

// MuJoCo itself would leave MUJOCO_LOG.TXT in the working directory.
TEST(Actions, ThatAreNoNumbersLeaveTheRobotAtRestAndNoFile) {
  std::filesystem::remove("MUJOCO_LOG.TXT");
  Stepper cheetah("id: 'HalfCheetah-v5'", std::vector<double>(18, 0.0));
  EXPECT_TRUE(std::isnan(cheetah.Step(std::vector<double>(6, std::nan(""))).reward));
  for (const double x : cheetah.observation()) EXPECT_TRUE(std::isfinite(x));
  EXPECT_FALSE(std::filesystem::exists("MUJOCO_LOG.TXT"));
}

TEST(Actions, DiscreteOnesAreForcedIntoTheirRange) {
  for (const double wild : {-5.0, std::nan(""), 1e300}) {
    Stepper acrobot("id: 'Acrobot-v1'", {0, 0, 0, 0}), cart("id: 'CartPole-v1'", {0, 0, 0, 0});
    acrobot.Step({wild});
    cart.Step({wild});
    EXPECT_TRUE(std::isfinite(acrobot.observation()[5]));
    EXPECT_TRUE(std::isfinite(cart.observation()[1]));
  }
}

}  // namespace
}  // namespace troupe
