#include "actor/gymnasium/shared_slots.h"

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <new>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace troupe {
namespace {

// Parts begin at cache lines, so that the two sides do not share any.
constexpr int64_t kAlignment = 64;

int64_t Place(int64_t size_bytes, int64_t* end) {
  const int64_t offset = (*end + kAlignment - 1) / kAlignment * kAlignment;
  *end = offset + size_bytes;
  return offset;
}

uint32_t RingSize(int num_slots) { return std::bit_ceil(static_cast<uint32_t>(num_slots)); }

int64_t SlotsBegin(int num_slots) {
  int64_t end = sizeof(ChildControl) + 2 * RingSize(num_slots) * sizeof(uint16_t);
  return Place(0, &end);
}

absl::Status NoMemory(const char* what, int64_t size_bytes) {
  return absl::ResourceExhaustedError(absl::StrCat(
      what, " of ", size_bytes, " bytes to share with Python: ", std::strerror(errno)));
}

}  // namespace

SlotOffsets::SlotOffsets(const EnvSpec& spec) {
  const int64_t number_bytes = spec.observation_size * sizeof(double);
  int64_t end = sizeof(SlotHeader);
  action = Place(spec.action_size * sizeof(double), &end);
  last_observation = Place(number_bytes, &end);
  last_images = Place(spec.image_bytes, &end);
  first_observation = Place(number_bytes, &end);
  first_images = Place(spec.image_bytes, &end);
  slot_bytes = Place(0, &end);
}

absl::StatusOr<std::unique_ptr<SharedSlots>> SharedSlots::Make(const EnvSpec& spec, int num_slots) {
  const int64_t size_bytes = SlotsBegin(num_slots) + SlotOffsets(spec).slot_bytes * num_slots;
  const int file = memfd_create("troupe-environments", MFD_CLOEXEC);
  if (file < 0) return NoMemory("memfd_create", size_bytes);
  if (ftruncate(file, size_bytes) != 0) {
    const absl::Status status = NoMemory("ftruncate", size_bytes);
    close(file);
    return status;
  }
  void* memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) {
    const absl::Status status = NoMemory("mmap", size_bytes);
    close(file);
    return status;
  }
  return std::unique_ptr<SharedSlots>(new SharedSlots(spec, num_slots, file, memory));
}

SharedSlots::SharedSlots(const EnvSpec& spec, int num_slots, int file, void* memory)
    : offsets_(spec),
      action_size_(spec.action_size),
      observation_size_(spec.observation_size),
      image_bytes_(spec.image_bytes),
      ring_size_(RingSize(num_slots)),
      slots_begin_(SlotsBegin(num_slots)),
      size_bytes_(slots_begin_ + offsets_.slot_bytes * num_slots),
      file_(file),
      memory_(memory) {
  Clear();
}

void SharedSlots::Clear() { new (memory_) ChildControl; }

SharedSlots::~SharedSlots() {
  munmap(memory_, size_bytes_);
  close(file_);
}

std::string SharedSlots::Json() const {
  return nlohmann::json{{"ring_size", ring_size_},
                        {"slots_begin", slots_begin_},
                        {"slot_bytes", offsets_.slot_bytes},
                        {"offsets",
                         {{"action", offsets_.action},
                          {"last_observation", offsets_.last_observation},
                          {"last_images", offsets_.last_images},
                          {"first_observation", offsets_.first_observation},
                          {"first_images", offsets_.first_images}}}}
      .dump();
}

absl::Span<double> SharedSlots::action(int slot) {
  return {reinterpret_cast<double*>(At(slot, offsets_.action)), static_cast<size_t>(action_size_)};
}

ObservationView SharedSlots::last(int slot) const {
  return View(slot, offsets_.last_observation, offsets_.last_images);
}

ObservationView SharedSlots::first(int slot) const {
  return View(slot, offsets_.first_observation, offsets_.first_images);
}

ObservationView SharedSlots::View(int slot, int64_t numbers, int64_t images) const {
  return {
      {reinterpret_cast<const double*>(At(slot, numbers)), static_cast<size_t>(observation_size_)},
      {reinterpret_cast<const uint8_t*>(At(slot, images)), static_cast<size_t>(image_bytes_)}};
}

}  // namespace troupe
