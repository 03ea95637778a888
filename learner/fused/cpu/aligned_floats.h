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
template <typename T>
class AlignedArray final {
 public:
  explicit AlignedArray(int64_t size = 0)
      : size_(RoomFor(size)), data_(new (std::align_val_t{kAlignmentBytes}) T[size_]()) {}

  int64_t size() const { return size_; }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](int64_t i) { return data_[i]; }
  T operator[](int64_t i) const { return data_[i]; }

 private:
  struct Free {
    void operator()(T* data) const { operator delete[](data, std::align_val_t{kAlignmentBytes}); }
  };

  int64_t size_;
  std::unique_ptr<T[], Free> data_;
};
using AlignedFloats = AlignedArray<float>;

}  // namespace troupe::cpu

#endif  // TROUPE_LEARNER_FUSED_CPU_ALIGNED_FLOATS_H_
