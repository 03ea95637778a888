#include "actor/vector_env.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

// Finalizer of SplitMix64 (Steele et al. 2014): near seeds give unrelated ones.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

void PauseCpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Looks at `value` up to `spins` times, then sleeps until it is notified and differs from `old`.
template <typename T>
T AwaitChange(const std::atomic<T>& value, T old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (const T now = value.load(std::memory_order_acquire); now != old) return now;
    PauseCpu();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

// About 20 us where every thread has a core of its own; where they share, spinning would only
// keep the others from working.
int SpinsFor(int num_threads) {
  return num_threads <= static_cast<int>(std::thread::hardware_concurrency()) ? 1000 : 0;
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
  std::vector<std::unique_ptr<Env>> envs;
  for (int i = 0; i < num_envs; ++i) {
    auto env = MakeEnv(config, asset_dir);
    if (!env.ok()) return env.status();
    envs.push_back(*std::move(env));
  }
  return std::unique_ptr<VectorEnv>(
      new VectorEnv(std::move(envs), std::min(num_threads, num_envs), seed));
}

VectorEnv::VectorEnv(std::vector<std::unique_ptr<Env>> envs, int num_threads, uint64_t seed)
    : seed_(seed),
      claim_size_(std::max(1, static_cast<int>(envs.size()) / (8 * num_threads))),
      spins_(SpinsFor(num_threads)),
      spec_(envs.front()->spec()),
      slots_(envs.size()),
      observations_(envs.size() * spec_.observation_size),
      next_observations_(observations_.size()),
      rewards_(envs.size()),
      terminated_(envs.size()),
      truncated_(envs.size()),
      episode_returns_(envs.size()),
      episode_lengths_(envs.size()),
      claimed_(static_cast<int>(envs.size())) {
  for (size_t i = 0; i < envs.size(); ++i) {
    slots_[i].env = std::move(envs[i]);
    slots_[i].action.resize(spec_.action_size);
    slots_[i].observation.resize(spec_.observation_size);
  }
  for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this] { WorkUntilStopped(); });
}

VectorEnv::~VectorEnv() {
  stopping_.store(true, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void VectorEnv::Reset() {
  for (int i = 0; i < num_envs(); ++i) StartEpisode(i);
}

void VectorEnv::Step(absl::Span<const float> actions, absl::Span<const uint8_t> active) {
  assert(static_cast<int64_t>(actions.size()) == num_envs() * spec_.action_size);
  assert(active.empty() || active.size() == slots_.size());
  actions_ = actions;
  active_ = active;
  stepped_.store(0, std::memory_order_relaxed);
  claimed_.store(0, std::memory_order_release);
  if (!threads_.empty()) {
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
  }
  StepUnclaimed();
  int stepped = stepped_.load(std::memory_order_acquire);
  while (stepped < num_envs()) stepped = AwaitChange(stepped_, stepped, spins_);
}

void VectorEnv::WorkUntilStopped() {
  uint32_t round = 0;
  for (;;) {
    round = AwaitChange(round_, round, spins_);
    if (stopping_.load(std::memory_order_relaxed)) return;
    StepUnclaimed();
  }
}

// A thread that is late for a step may find the next one's environments here, and steps them.
void VectorEnv::StepUnclaimed() {
  for (;;) {
    const int first = claimed_.fetch_add(claim_size_, std::memory_order_acq_rel);
    if (first >= num_envs()) return;
    const int end = std::min(first + claim_size_, num_envs());
    for (int i = first; i < end; ++i) {
      active_.empty() || active_[i] != 0 ? StepOne(i) : SkipOne(i);
    }
    const int before = stepped_.fetch_add(end - first, std::memory_order_acq_rel);
    if (before + end - first == num_envs()) stepped_.notify_one();
  }
}

void VectorEnv::StepOne(int i) {
  Slot& slot = slots_[i];
  const float* action = actions_.data() + i * spec_.action_size;
  std::copy_n(action, spec_.action_size, slot.action.begin());
  const StepResult result = slot.env->Step(slot.action, absl::MakeSpan(slot.observation));
  slot.episode_return += result.reward;
  ++slot.episode_steps;

  const int64_t row = i * spec_.observation_size;
  std::copy(slot.observation.begin(), slot.observation.end(), next_observations_.begin() + row);
  rewards_[i] = static_cast<float>(result.reward);
  terminated_[i] = result.terminated;
  truncated_[i] = result.truncated;
  const bool ended = result.terminated || result.truncated;
  episode_returns_[i] = ended ? slot.episode_return : 0;
  episode_lengths_[i] = ended ? slot.episode_steps : 0;
  if (ended) {
    StartEpisode(i);
  } else {
    std::copy_n(next_observations_.begin() + row, spec_.observation_size,
                observations_.begin() + row);
  }
}

void VectorEnv::SkipOne(int i) {
  const int64_t row = i * spec_.observation_size;
  std::copy_n(observations_.begin() + row, spec_.observation_size,
              next_observations_.begin() + row);
  rewards_[i] = 0;
  terminated_[i] = truncated_[i] = 0;
  episode_returns_[i] = 0;
  episode_lengths_[i] = 0;
}

void VectorEnv::StartEpisode(int i) {
  Slot& slot = slots_[i];
  slot.episode_return = 0;
  slot.episode_steps = 0;
  slot.env->Reset(EpisodeSeed(seed_, i, slot.next_episode++), absl::MakeSpan(slot.observation));
  std::copy(slot.observation.begin(), slot.observation.end(),
            observations_.begin() + i * spec_.observation_size);
}

}  // namespace troupe
