#ifndef TROUPE_ACTOR_GYMNASIUM_ENV_CHILD_H_
#define TROUPE_ACTOR_GYMNASIUM_ENV_CHILD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "actor/env.h"
#include "actor/gymnasium/child_process.h"
#include "actor/gymnasium/shared_slots.h"

namespace troupe {

// What went wrong with environments in Python, each time at the cost of the episodes of one child.
// Atomic, for metrics are read by another thread.
struct EnvFaults {
  std::atomic<int64_t> crashes{0};   // an exception or the end of the process
  std::atomic<int64_t> timeouts{0};  // a step, a reset or a start that took too long
  std::atomic<int64_t> invalid{0};   // numbers that are not finite, other spaces than before
};

// A child process with its environments, one a slot.  A child that fails is killed, reported with
// what it said, counted and replaced, at once and then after delays that double up to 10 s; all its
// slots then begin new episodes.
//
// Not thread-safe.  Begin gives commands, Collect tells which are done, without a call of the
// kernel; Turn is to be called whenever the socket is readable or deadline() is over.
class EnvChild final {
 public:
  struct Options {
    proto::Environment config;  // with gymnasium
    int num_slots = 1;
    std::string name;  // "environments 4 to 7", for messages
  };
  enum class Result : uint8_t {
    kBegan,    // the first episode
    kStepped,  // one step, after which another episode may have begun
    kLost,     // the episode was lost, and another one has begun
  };
  struct Event {
    int slot = 0;
    Result result = Result::kStepped;
  };

  // `seed`: gives the seed of a slot's next episode.  `faults` outlives the child.
  EnvChild(const Options& options, std::function<uint64_t(int slot)> seed, EnvFaults* faults);
  ~EnvChild();

  // Of the environments; null until a child has told.
  const EnvSpec* spec() const { return spec_.get(); }
  SharedSlots& slots() { return *slots_; }
  // OK, or why the very first child failed; there is no other then.
  const absl::Status& status() const { return status_; }

  int socket() const { return process_ == nullptr ? -1 : process_->socket(); }
  // When Turn is to be called at the latest.
  absl::Time deadline() const { return deadline_; }
  // Slots that were begun, or are lost, and of which no event has told since.
  int num_busy() const { return num_busy_; }

  // Has these slots take a step, one after the other and after those before; their actions are in
  // shared memory.  Slots that were lost meanwhile are left out.
  void Begin(absl::Span<const uint16_t> slots);
  // Whether the last Begin found the child asleep: it had nothing left to do.
  bool was_asleep() const { return was_asleep_; }
  // Begins an episode in every slot.  REQUIRES: no slot is busy.
  void BeginEpisodes();
  // Appends what is done to `events`.
  void Collect(absl::Time now, std::vector<Event>* events);
  // Has the child send a datagram as soon as `count` more slots are done than were collected;
  // false: so many are.
  bool WakeAfter(int count);
  // Hears what the child says, and replaces one that failed.
  void Turn(absl::Time now);
  // The environment of `slot` gave numbers that cannot be learned from.
  void Reject(int slot, const std::string& why);

  void HangUp();

 private:
  enum class State : uint8_t { kIdle, kStepping, kBeginning, kLost };
  using Counter = std::atomic<int64_t> EnvFaults::*;

  void Launch();
  void Hear(const std::string& message);
  void Meet(const std::string& introduction);
  // Gives a command for each slot, with `flag` added.
  void Command(absl::Span<const uint16_t> slots, uint16_t flag);
  // Whether the child can go on by itself: a vector steps once all of it is to.
  bool IsToAnswer() const;
  // The slot of the next command that is done; none: the child says what cannot be.
  std::optional<int> NextDone();
  void Fail(Counter counter, const std::string& why);

  const Options options_;
  const absl::Duration start_timeout_, step_timeout_;
  const std::function<uint64_t(int)> seed_;
  EnvFaults* const faults_;

  absl::Status status_;
  std::unique_ptr<EnvSpec> spec_;
  std::unique_ptr<SharedSlots> slots_;
  std::unique_ptr<ChildProcess> process_;  // null: waits for deadline_ to start the next
  bool met_ = false;                       // it shares the memory
  bool has_begun_ = false;                 // some child has finished a command
  std::vector<State> states_;              // of the slots
  int num_busy_ = 0;
  bool was_asleep_ = false;
  std::vector<uint16_t> idle_;             // scratch
  uint32_t commands_ = 0, collected_ = 0;  // as ChildControl counts
  absl::Duration delay_;                   // before the next start after a failure
  absl::Time deadline_ = absl::InfiniteFuture();
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_GYMNASIUM_ENV_CHILD_H_
