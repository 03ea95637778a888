#include "actor/gymnasium/env_child.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "actor/gymnasium/env_spec.h"
#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"

namespace troupe {
namespace {

constexpr absl::Duration kFirstDelay = absl::Milliseconds(100), kLastDelay = absl::Seconds(10);
// For a process to end by itself after it closed its socket, so that its own words are known.
constexpr absl::Duration kLastBreath = absl::Milliseconds(500);

std::string Python(const proto::Gymnasium& config) {
  if (config.has_python()) return config.python();
  const char* python = std::getenv("TROUPE_PYTHON");
  return python != nullptr && *python != '\0' ? python : "python3";
}

std::string ChildOptions(const proto::Environment& config, int num_slots) {
  const proto::Gymnasium& gymnasium = config.gymnasium();
  return nlohmann::json{{"id", gymnasium.id()},
                        {"kwargs", nlohmann::json::parse(gymnasium.kwargs_json(), nullptr, false)},
                        {"module", gymnasium.module()},
                        {"max_episode_steps", config.max_episode_steps()},
                        {"num_slots", num_slots},
                        {"vector", gymnasium.vector()}}
      .dump();
}

}  // namespace

EnvChild::EnvChild(const Options& options, std::function<uint64_t(int)> seed, EnvFaults* faults)
    : options_(options),
      start_timeout_(absl::Milliseconds(options.config.gymnasium().start_timeout_ms())),
      step_timeout_(absl::Milliseconds(options.config.gymnasium().step_timeout_ms())),
      seed_(std::move(seed)),
      faults_(faults),
      states_(options.num_slots, State::kIdle),
      delay_(absl::ZeroDuration()) {
  Launch();
}

EnvChild::~EnvChild() = default;

void EnvChild::HangUp() {
  if (process_ != nullptr) process_->HangUp();
}

void EnvChild::Launch() {
  met_ = false;
  deadline_ = absl::Now() + start_timeout_;
  auto process = ChildProcess::Start(Python(options_.config.gymnasium()),
                                     ChildOptions(options_.config, options_.num_slots));
  if (process.ok()) {
    process_ = *std::move(process);
  } else {
    Fail(&EnvFaults::crashes, std::string(process.status().message()));
  }
}

void EnvChild::BeginEpisodes() {
  std::vector<uint16_t> all(options_.num_slots);
  std::iota(all.begin(), all.end(), uint16_t{0});
  num_busy_ = options_.num_slots;
  for (const uint16_t slot : all) {
    slots_->header(slot).seed = seed_(slot);
    if (states_[slot] != State::kLost) states_[slot] = State::kBeginning;
  }
  Command(all, SharedSlots::kReset);
}

void EnvChild::Begin(absl::Span<const uint16_t> slots) {
  idle_.clear();
  for (const uint16_t slot : slots) {
    if (states_[slot] != State::kIdle) continue;
    states_[slot] = State::kStepping;
    idle_.push_back(slot);
  }
  num_busy_ += static_cast<int>(idle_.size());
  if (!idle_.empty()) Command(idle_, 0);
}

bool EnvChild::IsToAnswer() const {
  const bool is_vector = options_.config.gymnasium().vector();
  return is_vector ? num_busy_ == options_.num_slots : commands_ != collected_;
}

void EnvChild::Command(absl::Span<const uint16_t> slots, uint16_t flag) {
  for (const uint16_t slot : slots) {
    slots_->header(slot).ended = 0;
    slots_->command(commands_++) = slot | flag;
  }
  if (IsToAnswer() && deadline_ == absl::InfiniteFuture()) deadline_ = absl::Now() + step_timeout_;
  ChildControl& control = slots_->control();
  control.commands.store(commands_);  // before the look at child_sleeps, as the child does it
  was_asleep_ = control.child_sleeps.load() != 0;
  if (!was_asleep_) return;
  // A child that is gone is found by the next Turn, with what it may have said last.
  if (!process_->Send("c", 1).ok()) deadline_ = absl::InfinitePast();
}

bool EnvChild::WakeAfter(int count) {
  if (!met_) return true;
  const uint32_t at = collected_ + static_cast<uint32_t>(count);
  slots_->control().wake_at.store(at);  // before the look at done, as the child does it
  return static_cast<int32_t>(slots_->control().done.load() - at) < 0;
}

void EnvChild::Collect(absl::Time now, std::vector<Event>* events) {
  if (!met_ || commands_ == collected_) return;
  const uint32_t done = slots_->control().done.load(std::memory_order_acquire);
  if (done == collected_) return;
  if (done - collected_ > commands_ - collected_) {
    return Fail(&EnvFaults::invalid, "it says that it has done more than it was asked");
  }
  while (collected_ != done) {
    const std::optional<int> slot = NextDone();
    if (!slot.has_value()) {
      return Fail(&EnvFaults::invalid, "it says that it has done what it was not asked");
    }
    const State state = std::exchange(states_[*slot], State::kIdle);
    --num_busy_;
    events->push_back({*slot, state == State::kLost       ? Result::kLost
                              : state == State::kStepping ? Result::kStepped
                                                          : Result::kBegan});
  }
  delay_ = absl::ZeroDuration();
  has_begun_ = true;
  deadline_ = IsToAnswer() ? now + step_timeout_ : absl::InfiniteFuture();
}

std::optional<int> EnvChild::NextDone() {
  const int slot = slots_->done(collected_++);
  if (slot >= options_.num_slots || states_[slot] == State::kIdle) return std::nullopt;
  return slot;
}

void EnvChild::Turn(absl::Time now) {
  if (!status_.ok()) return;
  if (process_ != nullptr) {
    const absl::StatusOr<std::optional<std::string>> message = process_->Receive();
    if (!message.ok()) {
      return Fail(&EnvFaults::crashes, absl::StrCat("the process ", process_->Kill(kLastBreath)));
    }
    if (message->has_value()) return Hear(**message);
  }
  if (now < deadline_) return;
  if (process_ == nullptr) return Launch();
  Fail(&EnvFaults::timeouts,
       met_ ? absl::StrCat("no step or reset within ", absl::FormatDuration(step_timeout_))
            : absl::StrCat("not started within ", absl::FormatDuration(start_timeout_)));
}

void EnvChild::Hear(const std::string& message) {
  if (message[0] == 'e') return Fail(&EnvFaults::crashes, message.substr(1));
  if (!met_) Meet(message);  // or else it is a wake-up
}

void EnvChild::Meet(const std::string& introduction) {
  absl::StatusOr<EnvSpec> spec = ParseEnvSpec(options_.config.gymnasium().id(), introduction);
  if (!spec.ok()) return Fail(&EnvFaults::invalid, std::string(spec.status().message()));
  if (spec_ == nullptr) {
    auto slots = SharedSlots::Make(*spec, options_.num_slots);
    if (!slots.ok()) return Fail(&EnvFaults::crashes, std::string(slots.status().message()));
    spec_ = std::make_unique<EnvSpec>(*std::move(spec));
    slots_ = *std::move(slots);
  } else if (*spec != *spec_) {
    return Fail(&EnvFaults::invalid, "its spaces are others than those of the child before");
  }
  met_ = true;
  slots_->Clear();
  commands_ = collected_ = 0;
  deadline_ = absl::InfiniteFuture();
  const std::string geometry = slots_->Json();
  if (!process_->Send(geometry.data(), geometry.size(), slots_->file()).ok()) return;
  BeginEpisodes();
}

void EnvChild::Reject(int slot, const std::string& why) {
  Fail(&EnvFaults::invalid, absl::StrCat("environment in slot ", slot, " ", why));
}

void EnvChild::Fail(Counter counter, const std::string& why) {
  if (process_ != nullptr) process_->Kill(absl::ZeroDuration());
  process_ = nullptr;
  const std::string text =
      absl::StrCat(options_.name, " of ", options_.config.gymnasium().id(), ": ", why);
  if (!has_begun_) {
    status_ = counter == &EnvFaults::timeouts ? absl::UnavailableError(text)
                                              : absl::InvalidArgumentError(text);
    return;
  }
  (faults_->*counter).fetch_add(1, std::memory_order_relaxed);
  spdlog::warn(
      "{}\nIts episodes end here; another process is started{}.", text,
      delay_ > absl::ZeroDuration() ? absl::StrCat(" in ", absl::FormatDuration(delay_)) : "");
  std::fill(states_.begin(), states_.end(), State::kLost);
  num_busy_ = options_.num_slots;
  met_ = false;
  deadline_ = absl::Now() + delay_;
  delay_ = std::clamp(delay_ * 2, kFirstDelay, kLastDelay);
}

}  // namespace troupe
