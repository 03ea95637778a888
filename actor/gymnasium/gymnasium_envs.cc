#include "actor/gymnasium/gymnasium_envs.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "actor/all_finite.h"
#include "actor/gymnasium/wait_for_children.h"

namespace troupe {
namespace {

// Once one environment is done, the others are waited for no longer than this.
constexpr absl::Duration kPatience = absl::Milliseconds(5);
// The longest that Finish takes if none is.
constexpr absl::Duration kLongest = absl::Milliseconds(100);

constexpr char kNotFinite[] = "numbers that are not finite";

// So many times in a row has no child been found asleep before the reserve is made smaller.
constexpr int kRoundsToTry = 50;

// Between two looks for children that failed, if none is waited for.
constexpr absl::Duration kBetweenLooks = absl::Milliseconds(10);

std::string ChildName(int first, int size) {
  return size == 1 ? absl::StrCat("environment ", first)
                   : absl::StrCat("environments ", first, " to ", first + size - 1);
}

using Children = std::vector<std::unique_ptr<EnvChild>>;

absl::Status AwaitSpecs(const Children& children) {
  std::vector<EnvChild*> unknown;
  do {
    unknown.clear();
    for (const auto& child : children) {
      if (!child->status().ok()) return child->status();
      if (child->spec() == nullptr) unknown.push_back(child.get());
    }
    if (!unknown.empty()) WaitForChildren(unknown, absl::InfiniteFuture());
  } while (!unknown.empty());
  for (const auto& child : children) {
    if (*child->spec() != *children.front()->spec()) {
      return absl::InvalidArgumentError("two children have environments of different spaces");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<VectorEnv>> GymnasiumEnvs::Make(const proto::Environment& config,
                                                               int num_envs, uint64_t seed) {
  const int per_child = std::min(config.gymnasium().envs_per_child(), num_envs);
  Parts parts;
  parts.faults = std::make_unique<EnvFaults>();
  parts.episodes = std::make_unique<std::vector<int64_t>>(num_envs);
  for (int first = 0; first < num_envs; first += per_child) {
    const int size = std::min(per_child, num_envs - first);
    const auto episode_seed = [seed, first, episodes = parts.episodes.get()](int slot) {
      return EpisodeSeed(seed, first + slot, (*episodes)[first + slot]);
    };
    parts.children.push_back(std::make_unique<EnvChild>(
        EnvChild::Options{.config = config, .num_slots = size, .name = ChildName(first, size)},
        episode_seed, parts.faults.get()));
  }
  absl::Status met = AwaitSpecs(parts.children);
  if (!met.ok()) {
    for (const auto& child : parts.children) child->HangUp();
    return met;
  }
  std::unique_ptr<GymnasiumEnvs> envs(
      new GymnasiumEnvs(std::move(parts), num_envs, per_child, config.gymnasium().vector()));
  if (absl::Status begun = envs->AwaitEpisodes(); !begun.ok()) return begun;
  return envs;
}

GymnasiumEnvs::GymnasiumEnvs(Parts parts, int num_envs, int envs_per_child, bool is_vector)
    : VectorEnv(*parts.children.front()->spec(), num_envs),
      envs_per_child_(envs_per_child),
      is_vector_(is_vector),
      parts_(std::move(parts)),
      keeps_up_(parts_.children.size()),
      begun_(parts_.children.size()) {
  for (const auto& child : parts_.children) all_.push_back(child.get());
}

GymnasiumEnvs::~GymnasiumEnvs() {
  for (const auto& child : parts_.children) child->HangUp();
}

VectorEnv::Faults GymnasiumEnvs::faults() const {
  const EnvFaults& faults = *parts_.faults;
  return {faults.crashes.load(std::memory_order_relaxed),
          faults.timeouts.load(std::memory_order_relaxed),
          faults.invalid.load(std::memory_order_relaxed)};
}

int GymnasiumEnvs::NumBusy() const {
  int busy = 0;
  for (const auto& child : parts_.children) busy += child->num_busy();
  return busy;
}

absl::Status GymnasiumEnvs::AwaitEpisodes() {
  done_.clear();
  while (NumBusy() > 0) {
    Await(absl::InfiniteFuture());
    Collect();
    for (const auto& child : parts_.children) {
      if (!child->status().ok()) return child->status();
    }
  }
  return absl::OkStatus();
}

void GymnasiumEnvs::Reset() {
  if (std::exchange(is_fresh_, false)) return;
  while (NumBusy() > 0) Finish();
  for (const auto& child : parts_.children) child->BeginEpisodes();
  while (NumBusy() > 0) Finish();
}

void GymnasiumEnvs::Begin(absl::Span<const int> envs, absl::Span<const float> actions) {
  for (std::vector<uint16_t>& slots : begun_) slots.clear();
  for (const int env : envs) {
    const int child = env / envs_per_child_, slot = env % envs_per_child_;
    const auto action = actions.subspan(env * spec_.action_size, spec_.action_size);
    absl::c_copy(action, parts_.children[child]->slots().action(slot).begin());
    begun_[child].push_back(static_cast<uint16_t>(slot));
  }
  bool slept = false;
  for (size_t child = 0; child < begun_.size(); ++child) {
    if (begun_[child].empty()) continue;
    parts_.children[child]->Begin(begun_[child]);
    slept = slept || parts_.children[child]->was_asleep();
  }
  AdaptReserve(slept);
}

void GymnasiumEnvs::AdaptReserve(bool slept) {
  num_busy_rounds_ = slept ? 0 : num_busy_rounds_ + 1;
  if (slept) {
    reserve_ = std::min(reserve_ + 1, std::max(1, envs_per_child_ / 2));
  } else if (num_busy_rounds_ >= kRoundsToTry) {
    num_busy_rounds_ = 0;
    reserve_ = std::max(1, reserve_ - 1);
  }
}

absl::Span<const int> GymnasiumEnvs::Finish() {
  done_.clear();
  const size_t enough = is_vector_ ? 1 : (NumBusy() + 3) / 4;
  const absl::Time start = absl::Now();
  Collect();  // before the look, for which what is done is not late, however late it is taken
  if (start >= next_look_) {
    WaitForChildren(all_, start);
    next_look_ = start + kBetweenLooks;
  }
  while (done_.size() < enough) {
    const absl::Time end = start + (done_.empty() ? kLongest : kPatience);
    if (absl::Now() >= end) break;
    Await(end);
    Collect();
  }
  return done_;
}

int GymnasiumEnvs::NumToWait(const EnvChild& child) const {
  if (is_vector_) return 1;  // all that it does next is done at once
  return std::max((child.num_busy() + 1) / 2, child.num_busy() - reserve_);
}

// One child is asked to wake the actor once most of its environments are done, when the others are
// about as far: each wake-up takes time from a child.  One that does not keep up is passed over.
void GymnasiumEnvs::Await(absl::Time until) {
  const int size = static_cast<int>(all_.size());
  bool may_sleep = true;
  int asked = -1;
  for (int i = 1; i <= size && asked < 0; ++i) {
    const int child = (last_asked_ + i) % size;
    if (keeps_up_[child] != 0 && all_[child]->num_busy() > 0) asked = child;
  }
  if (asked >= 0) {
    last_asked_ = asked;
    keeps_up_[asked] = 0;  // until it tells of something
    may_sleep = all_[asked]->WakeAfter(NumToWait(*all_[asked]));
  } else {
    for (EnvChild* child : all_) {
      if (child->num_busy() > 0) may_sleep = child->WakeAfter(1) && may_sleep;
    }
  }
  if (may_sleep) WaitForChildren(all_, until);
}

void GymnasiumEnvs::Collect() {
  const absl::Time now = absl::Now();
  for (size_t child = 0; child < all_.size(); ++child) {
    events_.clear();
    all_[child]->Collect(now, &events_);
    if (!events_.empty()) keeps_up_[child] = 1;
    for (const EnvChild::Event& event : events_) Take(static_cast<int>(child), event);
  }
}

void GymnasiumEnvs::Take(int child, const EnvChild::Event& event) {
  const int env = child * envs_per_child_ + event.slot;
  EnvChild& of_it = *parts_.children[child];
  if (event.result == EnvChild::Result::kStepped) return TakeStep(env, of_it, event.slot);
  const ObservationView first = of_it.slots().first(event.slot);
  if (!AllFinite(first.numbers))
    return of_it.Reject(event.slot, absl::StrCat("began with ", kNotFinite));
  Show(first, env, observations_);
  images_[env] = first.images;
  ++(*parts_.episodes)[env];
  RecordBeginning(env, event.result == EnvChild::Result::kLost);
  done_.push_back(env);
}

void GymnasiumEnvs::TakeStep(int env, EnvChild& child, int slot) {
  const SlotHeader& header = child.slots().header(slot);
  const StepResult result{.reward = header.reward,
                          .terminated = (header.ended & SlotHeader::kTerminated) != 0,
                          .truncated = (header.ended & SlotHeader::kTruncated) != 0};
  const bool ended = result.terminated || result.truncated;
  const ObservationView last = child.slots().last(slot);
  const ObservationView next = ended ? child.slots().first(slot) : last;
  if (!std::isfinite(result.reward) || !AllFinite(last.numbers) || !AllFinite(next.numbers)) {
    return child.Reject(slot, absl::StrCat("gave ", kNotFinite));
  }
  Show(last, env, next_observations_);
  Show(next, env, observations_);
  next_images_[env] = last.images;
  images_[env] = next.images;
  Record(env, result);
  if (ended) ++(*parts_.episodes)[env];
  done_.push_back(env);
}

void GymnasiumEnvs::Show(const ObservationView& view, int env, std::vector<float>& numbers) {
  absl::c_copy(view.numbers, numbers.begin() + env * spec_.observation_size);
}

}  // namespace troupe
