#include "actor/threaded_envs.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace troupe {
namespace {

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

ThreadedEnvs::ThreadedEnvs(std::vector<std::unique_ptr<Env>> envs, int num_threads, uint64_t seed)
    : VectorEnv(envs.front()->spec(), static_cast<int>(envs.size())),
      seed_(seed),
      claim_size_(std::max(1, static_cast<int>(envs.size()) / (8 * num_threads))),
      spins_(SpinsFor(num_threads)),
      slots_(envs.size()),
      claimed_(static_cast<int>(envs.size())) {
  begun_.reserve(envs.size());
  for (size_t i = 0; i < envs.size(); ++i) {
    slots_[i].env = std::move(envs[i]);
    slots_[i].action.resize(spec_.action_size);
    slots_[i].observation.resize(spec_.observation_size);
  }
  for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this] { WorkUntilStopped(); });
}

ThreadedEnvs::~ThreadedEnvs() {
  stopping_.store(true, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadedEnvs::Reset() {
  for (int i = 0; i < num_envs(); ++i) {
    StartEpisode(i);
    RecordBeginning(i, /*lost=*/false);
  }
}

void ThreadedEnvs::Begin(absl::Span<const int> envs, absl::Span<const float> actions) {
  assert(static_cast<int64_t>(actions.size()) == num_envs() * spec_.action_size);
  begun_.assign(envs.begin(), envs.end());
  actions_ = actions;
}

absl::Span<const int> ThreadedEnvs::Finish() {
  if (begun_.empty()) return {};
  stepped_.store(0, std::memory_order_relaxed);
  claimed_.store(num_envs() - num_begun(), std::memory_order_release);
  if (!threads_.empty()) {
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
  }
  StepUnclaimed();
  int stepped = stepped_.load(std::memory_order_acquire);
  while (stepped < num_begun()) stepped = AwaitChange(stepped_, stepped, spins_);
  return begun_;
}

void ThreadedEnvs::WorkUntilStopped() {
  uint32_t round = 0;
  for (;;) {
    round = AwaitChange(round_, round, spins_);
    if (stopping_.load(std::memory_order_relaxed)) return;
    StepUnclaimed();
  }
}

// A thread that is late for a step may find the next one's environments here, and steps them.
void ThreadedEnvs::StepUnclaimed() {
  for (;;) {
    const int first = claimed_.fetch_add(claim_size_, std::memory_order_acq_rel);
    if (first >= num_envs()) return;
    const int end = std::min(first + claim_size_, num_envs());
    const int left_out = num_envs() - num_begun();
    for (int at = first; at < end; ++at) StepOne(begun_[at - left_out]);
    const int before = stepped_.fetch_add(end - first, std::memory_order_acq_rel);
    if (before + end - first == num_begun()) stepped_.notify_one();
  }
}

void ThreadedEnvs::StepOne(int i) {
  Slot& slot = slots_[i];
  std::copy_n(actions_.data() + i * spec_.action_size, spec_.action_size, slot.action.begin());
  const StepResult result = slot.env->Step(slot.action, absl::MakeSpan(slot.observation));
  const int64_t row = i * spec_.observation_size;
  std::copy(slot.observation.begin(), slot.observation.end(), next_observations_.begin() + row);
  Record(i, result);
  if (result.terminated || result.truncated) {
    StartEpisode(i);
  } else {
    std::copy_n(next_observations_.begin() + row, spec_.observation_size,
                observations_.begin() + row);
  }
}

void ThreadedEnvs::StartEpisode(int i) {
  Slot& slot = slots_[i];
  slot.env->Reset(EpisodeSeed(seed_, i, slot.next_episode++), absl::MakeSpan(slot.observation));
  std::copy(slot.observation.begin(), slot.observation.end(),
            observations_.begin() + i * spec_.observation_size);
}

}  // namespace troupe
