#ifndef TROUPE_LEARNER_FUSED_CPU_ALIGNED_FLOATS_H_
#define TROUPE_LEARNER_FUSED_CPU_ALIGNED_FLOATS_H_

#include <cstdint>
#include <memory>
#include <new>

#include "learner/fused/cpu/kernels.h"

namespace troupe::cpu {

// `n` up to whole rows of kernels: their stride for a width of n.
inline constexpr int64_t RoomFor(int64_t n) {
  return (n + kRowFloats - 1) / kRowFloats * kRowFloats;
}

// Zeros at first, aligned for the kernels and with the room that they want.  Movable.
class AlignedFloats final {
 public:
  explicit AlignedFloats(int64_t size = 0)
      : size_(RoomFor(size)), data_(new (std::align_val_t{kAlignmentBytes}) float[size_]()) {}

  int64_t size() const { return size_; }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  float& operator[](int64_t i) { return data_[i]; }
  float operator[](int64_t i) const { return data_[i]; }

 private:
  struct Free {
    void operator()(float* data) const {
      operator delete[](data, std::align_val_t{kAlignmentBytes});
    }
  };

  int64_t size_;
  std::unique_ptr<float[], Free> data_;
};

}  // namespace troupe::cpu

#endif  // TROUPE_LEARNER_FUSED_CPU_ALIGNED_FLOATS_H_
