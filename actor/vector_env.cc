#include "actor/vector_env.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "actor/gymnasium/gymnasium_envs.h"
#include "actor/threaded_envs.h"

namespace troupe {
namespace {

// Finalizer of SplitMix64 (Steele et al. 2014): near seeds give unrelated ones.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t VectorEnv::EpisodeSeed(uint64_t seed, int64_t env, int64_t episode) {
  return Mix(Mix(Mix(seed) ^ static_cast<uint64_t>(env)) ^ static_cast<uint64_t>(episode));
}

absl::StatusOr<std::unique_ptr<VectorEnv>> VectorEnv::Make(const proto::Environment& config,
                                                           const std::string& asset_dir,
                                                           int num_envs, int num_threads,
                                                           uint64_t seed) {
  if (num_envs < 1 || num_threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a vector of environments needs num_envs and num_threads of at least 1, got ",
                     num_envs, " and ", num_threads));
  }
  if (config.has_gymnasium()) return GymnasiumEnvs::Make(config, num_envs, seed);
  std::vector<std::unique_ptr<Env>> envs;
  for (int i = 0; i < num_envs; ++i) {
    auto env = MakeEnv(config, asset_dir);
    if (!env.ok()) return env.status();
    envs.push_back(*std::move(env));
  }
  return std::make_unique<ThreadedEnvs>(std::move(envs), std::min(num_threads, num_envs), seed);
}

VectorEnv::VectorEnv(EnvSpec spec, int num_envs)
    : spec_(std::move(spec)),
      observations_(num_envs * spec_.observation_size),
      next_observations_(observations_.size()),
      rewards_(num_envs),
      images_(num_envs),
      next_images_(num_envs),
      terminated_(num_envs),
      truncated_(num_envs),
      lost_(num_envs),
      episode_returns_(num_envs),
      episode_lengths_(num_envs),
      sums_(num_envs) {}

void VectorEnv::Step(absl::Span<const float> actions) {
  std::vector<int> all(num_envs());
  std::iota(all.begin(), all.end(), 0);
  Begin(all, actions);
  for (int left = num_envs(); left > 0;) left -= static_cast<int>(Finish().size());
}

void VectorEnv::Record(int i, const StepResult& result) {
  Sums& sums = sums_[i];
  sums.reward += result.reward;
  ++sums.steps;
  const bool ended = result.terminated || result.truncated;
  rewards_[i] = static_cast<float>(result.reward);
  terminated_[i] = result.terminated;
  truncated_[i] = result.truncated;
  lost_[i] = 0;
  episode_returns_[i] = ended ? sums.reward : 0;
  episode_lengths_[i] = ended ? sums.steps : 0;
  if (ended) sums = {};
}

void VectorEnv::RecordBeginning(int i, bool lost) {
  rewards_[i] = 0;
  terminated_[i] = truncated_[i] = 0;
  lost_[i] = lost;
  episode_returns_[i] = 0;
  episode_lengths_[i] = 0;
  sums_[i] = {};
}

}  // namespace troupe
