#include "actor/envs/mujoco_env.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "spdlog/spdlog.h"

namespace troupe {
namespace {

std::string ModelPath(const std::string& xml_file, const std::string& asset_dir) {
  absl::string_view rest = xml_file;
  if (absl::ConsumePrefix(&rest, "~")) {
    const char* home = std::getenv("HOME");
    return absl::StrCat(home == nullptr ? "~" : home, rest);
  }
  const bool is_path = absl::StartsWith(xml_file, "/") || absl::StartsWith(xml_file, ".");
  return is_path ? xml_file : absl::StrCat(asset_dir, "/", xml_file);
}

// Is this thread loading a model?  The compiler's remarks on Gymnasium's own models (such as on
// deprecated attributes) are of no use to whoever runs them.
thread_local bool loading = false;

// MuJoCo would write MUJOCO_LOG.TXT into the working directory.  A policy that has become NaN
// causes a warning at every step: only the 1st, 2nd, 4th, 8th, ... are shown.
void LogWarning(const char* text) {
  static std::atomic<uint64_t> count{0};
  if (loading) {
    spdlog::debug("MuJoCo: {}", text);
  } else if (const uint64_t n = ++count; std::has_single_bit(n)) {
    spdlog::warn("MuJoCo (warning {} of this process): {}", n, text);
  }
}

// Loads a model. NOT_FOUND or INVALID_ARGUMENT, with the path.
absl::StatusOr<std::shared_ptr<const mjModel>> LoadModel(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(absl::StrCat("no MuJoCo model file ", path,
                                            " (TROUPE_ASSET_DIR names another folder of models)"));
  }
  char text[1000] = "";
  loading = true;
  mjModel* model = mj_loadXML(path.c_str(), nullptr, text, sizeof(text));
  loading = false;
  if (model == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("cannot load MuJoCo model ", path, ": ", text));
  }
  return std::shared_ptr<const mjModel>(model, [](const mjModel* m) {
    mj_deleteModel(const_cast<mjModel*>(m));  // NOLINT: ours, const only for its readers
  });
}

// INVALID_ARGUMENT if the formulas of the task cannot read this model.
absl::Status CheckModel(const MujocoTask& task, const proto::Environment& options,
                        const mjModel& model) {
  if (model.nq < task.min_nq || model.nv < task.min_nv || model.nsite < task.min_sites ||
      model.nu < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        task.task.id, " needs a model with at least nq=", task.min_nq, " nv=", task.min_nv,
        " nsite=", task.min_sites, " nu=1; ", options.xml_file(), " has nq=", model.nq,
        " nv=", model.nv, " nsite=", model.nsite, " nu=", model.nu));
  }
  if (options.has_main_body() && (options.main_body() < 0 || options.main_body() >= model.nbody)) {
    return absl::InvalidArgumentError(absl::StrCat("main_body=", options.main_body(), ", but ",
                                                   options.xml_file(), " has bodies 0 to ",
                                                   model.nbody - 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::array<int, kMaxTaskBodies>> FindBodies(const MujocoTask& task,
                                                           const proto::Environment& options,
                                                           const mjModel& model) {
  std::array<int, kMaxTaskBodies> ids{};
  for (int i = 0; i < kMaxTaskBodies; ++i) {
    const std::string name(task.bodies[i]);
    if (name.empty()) continue;
    ids[i] = mj_name2id(&model, mjOBJ_BODY, name.c_str());
    if (ids[i] < 0) {
      return absl::InvalidArgumentError(absl::StrCat(task.task.id, " needs a body \"", name,
                                                     "\", which ", options.xml_file(), " lacks"));
    }
  }
  return ids;
}

}  // namespace

absl::StatusOr<MujocoEnv::ModelPtr> MujocoEnv::SharedModel(const std::string& path) {
  struct Models {
    absl::Mutex mu;
    // The models in use, by path; a model goes with its last environment.
    std::map<std::string, std::weak_ptr<const mjModel>> by_path ABSL_GUARDED_BY(mu);
  };
  static Models& models = *[] {
    mju_user_warning = LogWarning;
    return new Models;
  }();
  absl::MutexLock lock(&models.mu);
  std::weak_ptr<const mjModel>& shared = models.by_path[path];
  if (ModelPtr model = shared.lock()) return model;
  absl::StatusOr<ModelPtr> model = LoadModel(path);
  if (model.ok()) shared = *model;
  return model;
}

absl::StatusOr<std::unique_ptr<Env>> MujocoEnv::Make(const MujocoTask& task,
                                                     const proto::Environment& options,
                                                     const std::string& asset_dir) {
  absl::StatusOr<ModelPtr> model = SharedModel(ModelPath(options.xml_file(), asset_dir));
  if (!model.ok()) return model.status();
  if (absl::Status status = CheckModel(task, options, **model); !status.ok()) return status;
  auto bodies = FindBodies(task, options, **model);
  if (!bodies.ok()) return bodies.status();
  return std::unique_ptr<Env>(new MujocoEnv(task, options, *std::move(model), *bodies));
}

MujocoEnv::MujocoEnv(const MujocoTask& task, const proto::Environment& options, ModelPtr model,
                     const std::array<int, kMaxTaskBodies>& bodies)
    : task_(task),
      options_(options),
      model_(std::move(model)),
      step_seconds_(model_->opt.timestep * options.frame_skip()),
      data_(mj_makeData(model_.get())),
      world_{*model_, *data_, options_, bodies} {
  mj_forward(model_.get(), data_.get());
  ObservationWriter counter(nullptr, options_.hide_velocities());
  task_.observe(world_, &counter);
  spec_.id = std::string(task.task.id);
  spec_.observation_size = counter.size();
  spec_.action_size = model_->nu;
  for (int64_t i = 0; i < model_->nu; ++i) {
    // Gymnasium's action space is float32.
    spec_.action_low.push_back(static_cast<float>(model_->actuator_ctrlrange[2 * i]));
    spec_.action_high.push_back(static_cast<float>(model_->actuator_ctrlrange[2 * i + 1]));
  }
}

void MujocoEnv::Reset(uint64_t seed, absl::Span<double> observation) {
  Random random(seed);
  mj_resetData(model_.get(), data_.get());
  task_.perturb(world_, &random);
  mj_forward(model_.get(), data_.get());
  ObservationWriter writer(observation.data(), options_.hide_velocities());
  task_.observe(world_, &writer);
}

absl::Status MujocoEnv::ResetToState(absl::Span<const double> state,
                                     absl::Span<double> observation) {
  const int64_t nq = model_->nq, nv = model_->nv;
  if (static_cast<int64_t>(state.size()) != nq + nv) {
    return absl::InvalidArgumentError(absl::StrCat("the state of ", spec_.id, " is qpos[", nq,
                                                   "] then qvel[", nv, "], ", nq + nv,
                                                   " numbers; got ", state.size()));
  }
  mj_resetData(model_.get(), data_.get());
  std::copy_n(state.begin(), nq, data_->qpos);
  std::copy_n(state.begin() + nq, nv, data_->qvel);
  mj_forward(model_.get(), data_.get());
  ObservationWriter writer(observation.data(), options_.hide_velocities());
  task_.observe(world_, &writer);
  return absl::OkStatus();
}

StepResult MujocoEnv::Step(absl::Span<const double> action, absl::Span<double> observation) {
  const double before = task_.position == nullptr ? 0 : task_.position(world_);
  std::copy(action.begin(), action.end(), data_->ctrl);
  for (int i = 0; i < options_.frame_skip(); ++i) mj_step(model_.get(), data_.get());
  if (task_.needs_contact_forces) mj_rnePostConstraint(model_.get(), data_.get());
  const double after = task_.position == nullptr ? 0 : task_.position(world_);
  ObservationWriter writer(observation.data(), options_.hide_velocities());
  task_.observe(world_, &writer);
  return task_.evaluate(world_, action, (after - before) / step_seconds_);
}

}  // namespace troupe
