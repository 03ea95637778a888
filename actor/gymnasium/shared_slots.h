#ifndef TROUPE_ACTOR_GYMNASIUM_SHARED_SLOTS_H_
#define TROUPE_ACTOR_GYMNASIUM_SHARED_SLOTS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/env.h"

namespace troupe {

// The first bytes of a slot.
struct SlotHeader {
  uint64_t seed = 0;  // of the episode to begin, with a kReset
  double reward = 0;
  uint8_t ended = 0;  // kTerminated and kTruncated; the child sets them, the actor clears them

  static constexpr uint8_t kTerminated = 1, kTruncated = 2;
};
static_assert(sizeof(SlotHeader) == 24);

// The first bytes of the memory: commands of the actor, and what the child has carried out, both
// counted from the child's start and wrapping.  Behind it are two rings: command i, a slot's number
// that may have kReset added, is element i % ring_size of the first, and the slot that was done as
// the i-th that of the second.
struct ChildControl {
  alignas(64) std::atomic<uint32_t> commands{0};  // written by the actor
  std::atomic<uint32_t> wake_at{0};           // by the actor: a datagram is to come at this count
  alignas(64) std::atomic<uint32_t> done{0};  // by the child
  std::atomic<uint32_t> child_sleeps{0};      // by the child: it has none, and reads its socket
};
static_assert(sizeof(ChildControl) == 128 && std::atomic<uint32_t>::is_always_lock_free);

// Where the rest of a slot lies. Unit: bytes from its beginning.
struct SlotOffsets {
  explicit SlotOffsets(const EnvSpec& spec);
  int64_t action;             // float64 [action_size]
  int64_t last_observation;   // float64 [observation_size]: what the step led to
  int64_t last_images;        // uint8 [image_bytes]
  int64_t first_observation;  // the same of the episode that began after it
  int64_t first_images;
  int64_t slot_bytes;
};

// What an observation is made of.
struct ObservationView {
  absl::Span<const double> numbers;
  absl::Span<const uint8_t> images;
};

// Memory that an actor shares with a child that steps environments, a slot for each.  A slot is the
// child's from a command for it until that is counted as done.
class SharedSlots final {
 public:
  // RESOURCE_EXHAUSTED: there is not so much memory.
  static absl::StatusOr<std::unique_ptr<SharedSlots>> Make(const EnvSpec& spec, int num_slots);
  ~SharedSlots();
  SharedSlots(const SharedSlots&) = delete;
  SharedSlots& operator=(const SharedSlots&) = delete;

  int file() const { return file_; }
  // Added to a slot's number: it begins an episode with the seed there, and takes no step.
  static constexpr uint16_t kReset = 0x8000;

  // Where everything lies, as env_child.py reads it.
  std::string Json() const;

  ChildControl& control() { return *static_cast<ChildControl*>(memory_); }
  uint16_t& command(uint32_t i) { return ring()[i % ring_size_]; }
  // What the child wrote, whatever that is.
  uint16_t done(uint32_t i) { return ring()[ring_size_ + i % ring_size_]; }
  // As for a new child.
  void Clear();
  SlotHeader& header(int slot) { return *reinterpret_cast<SlotHeader*>(At(slot, 0)); }
  absl::Span<double> action(int slot);
  ObservationView last(int slot) const;
  ObservationView first(int slot) const;

 private:
  SharedSlots(const EnvSpec& spec, int num_slots, int file, void* memory);
  char* At(int slot, int64_t offset) const {
    return static_cast<char*>(memory_) + slots_begin_ + slot * offsets_.slot_bytes + offset;
  }
  uint16_t* ring() {
    return reinterpret_cast<uint16_t*>(static_cast<char*>(memory_) + sizeof(ChildControl));
  }
  ObservationView View(int slot, int64_t numbers, int64_t images) const;

  const SlotOffsets offsets_;
  const int64_t action_size_, observation_size_, image_bytes_;
  const uint32_t ring_size_;   // a power of 2, so that counters may wrap
  const int64_t slots_begin_;  // bytes before the first slot
  const int64_t size_bytes_;
  const int file_;
  void* const memory_;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_GYMNASIUM_SHARED_SLOTS_H_
