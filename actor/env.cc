#include "actor/env.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "actor/envs/classic_env.h"
#include "actor/envs/mujoco_env.h"
#include "actor/envs/mujoco_task.h"
#include "actor/gymnasium/gymnasium_env.h"
#include "common/nearest.h"
#include "google/protobuf/text_format.h"

namespace troupe {
namespace {

using google::protobuf::FieldDescriptor;

// Truncates episodes of another environment, whatever else happens at that step.
class TimeLimit final : public Env {
 public:
  TimeLimit(std::unique_ptr<Env> env, int64_t max_episode_steps)
      : env_(std::move(env)), spec_(env_->spec()) {
    spec_.max_episode_steps = max_episode_steps;
  }

  const EnvSpec& spec() const override { return spec_; }

  void Reset(uint64_t seed, absl::Span<double> observation) override {
    elapsed_steps_ = 0;
    env_->Reset(seed, observation);
  }

  StepResult Step(absl::Span<const double> action, absl::Span<double> observation) override {
    StepResult result = env_->Step(action, observation);
    ++elapsed_steps_;
    if (elapsed_steps_ >= spec_.max_episode_steps) result.truncated = true;
    return result;
  }

  absl::Status ResetToState(absl::Span<const double> state,
                            absl::Span<double> observation) override {
    absl::Status status = env_->ResetToState(state, observation);
    if (status.ok()) elapsed_steps_ = 0;
    return status;
  }

 private:
  const std::unique_ptr<Env> env_;
  EnvSpec spec_;
  int64_t elapsed_steps_ = 0;
};

absl::Status UnknownId(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("unknown environment id \"", id,
                                          "\"; the nearest known one is \"",
                                          NearestName(id, KnownEnvIds()), "\""));
}

// The keywords that are set in `message`.
std::vector<const FieldDescriptor*> Keywords(const proto::Environment& message) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  const auto is_general = [](const FieldDescriptor* field) {
    return field->number() == proto::Environment::kIdFieldNumber ||
           field->number() == proto::Environment::kMaxEpisodeStepsFieldNumber ||
           field->number() == proto::Environment::kHideVelocitiesFieldNumber;
  };
  fields.erase(std::remove_if(fields.begin(), fields.end(), is_general), fields.end());
  return fields;
}

std::string Names(const std::vector<const FieldDescriptor*>& fields) {
  if (fields.empty()) return "none";
  return absl::StrJoin(fields, ", ", [](std::string* out, const FieldDescriptor* field) {
    absl::StrAppend(out, field->name());
  });
}

// `config` with the task's defaults for what is not set; INVALID_ARGUMENT names every keyword
// that the task does not have.
absl::StatusOr<proto::Environment> WithDefaults(const Task& task,
                                                const proto::Environment& config) {
  proto::Environment merged;
  if (!google::protobuf::TextFormat::ParseFromString(task.defaults, &merged)) {
    return absl::InternalError(absl::StrCat("the defaults of ", task.id, " do not parse"));
  }
  merged.set_max_episode_steps(task.max_episode_steps);
  const std::vector<const FieldDescriptor*> known = Keywords(merged);
  std::vector<const FieldDescriptor*> unknown = Keywords(config);
  const auto is_known = [&known](const FieldDescriptor* field) {
    return std::find(known.begin(), known.end(), field) != known.end();
  };
  unknown.erase(std::remove_if(unknown.begin(), unknown.end(), is_known), unknown.end());
  if (!unknown.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(task.id, " does not have the keywords ",
                                                   Names(unknown), "; it has ", Names(known)));
  }
  merged.MergeFrom(config);
  return merged;
}

absl::StatusOr<std::unique_ptr<Env>> MakeMujoco(const MujocoTask& task,
                                                const proto::Environment& config,
                                                const std::string& asset_dir) {
  auto options = WithDefaults(task.task, config);
  if (!options.ok()) return options.status();
  auto env = MujocoEnv::Make(task, *options, asset_dir);
  if (!env.ok()) return env.status();
  return std::make_unique<TimeLimit>(*std::move(env), options->max_episode_steps());
}

absl::StatusOr<std::unique_ptr<Env>> MakeClassic(const ClassicTask& task,
                                                 const proto::Environment& config) {
  auto options = WithDefaults(task.task, config);
  if (!options.ok()) return options.status();
  return std::make_unique<TimeLimit>(std::make_unique<ClassicEnv>(task, *options),
                                     options->max_episode_steps());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Env>> MakeEnv(const proto::Environment& config,
                                             const std::string& asset_dir) {
  if (config.has_gymnasium()) return GymnasiumEnv::Make(config);
  for (const MujocoTask& task : MujocoTasks()) {
    if (task.task.id == config.id()) return MakeMujoco(task, config, asset_dir);
  }
  for (const ClassicTask& task : ClassicTasks()) {
    if (task.task.id == config.id()) return MakeClassic(task, config);
  }
  return UnknownId(config.id());
}

std::vector<std::string> KnownEnvIds() {
  std::vector<std::string> ids;
  for (const MujocoTask& task : MujocoTasks()) ids.emplace_back(task.task.id);
  for (const ClassicTask& task : ClassicTasks()) ids.emplace_back(task.task.id);
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::string DefaultAssetDir() {
  const char* dir = std::getenv("TROUPE_ASSET_DIR");
  return dir != nullptr && *dir != '\0' ? dir : TROUPE_MUJOCO_ASSETS;
}

}  // namespace troupe
