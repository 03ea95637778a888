#ifndef TROUPE_TESTS_UNIT_FUSED_CPU_ALIGNED_ROWS_H_
#define TROUPE_TESTS_UNIT_FUSED_CPU_ALIGNED_ROWS_H_

#include <cstdint>
#include <memory>
#include <new>
#include <random>

#include "gtest/gtest.h"
#include "learner/fused/cpu/kernels.h"

namespace troupe::cpu {

// A matrix as kernels want it: rows with room for whole vectors, filled with zeros.
class Rows {
 public:
  Rows(int64_t rows, int64_t width)
      : stride_((width + kRowFloats - 1) / kRowFloats * kRowFloats),
        width_(width),
        rows_(rows),
        data_(new (std::align_val_t{kAlignmentBytes}) float[rows * stride_ + kRowFloats]()) {}

  // Uniform in (-1, 1).
  static Rows Random(int64_t rows, int64_t width, std::mt19937& engine) {
    Rows matrix(rows, width);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < width; ++j) matrix(i, j) = uniform(engine);
    }
    return matrix;
  }

  float& operator()(int64_t i, int64_t j) { return data_[i * stride_ + j]; }
  float operator()(int64_t i, int64_t j) const { return data_[i * stride_ + j]; }
  float* data() const { return data_.get(); }
  int64_t stride() const { return stride_; }
  int64_t width() const { return width_; }
  int64_t rows() const { return rows_; }

 private:
  struct Free {
    void operator()(float* data) const {
      operator delete[](data, std::align_val_t{kAlignmentBytes});
    }
  };

  int64_t stride_, width_, rows_;
  std::unique_ptr<float[], Free> data_;
};

// A test of the kernels of each instruction set; skipped for those that this machine lacks.
class EveryKernel : public testing::TestWithParam<InstructionSet> {
 protected:
  void SetUp() override {
    kernels_ = KernelsFor(GetParam());
    if (kernels_ == nullptr) GTEST_SKIP() << "this machine has not got these instructions";
  }

  const Kernels* kernels_ = nullptr;
  std::mt19937 engine_{1};
};

inline std::string SetName(const testing::TestParamInfo<InstructionSet>& info) {
  if (info.param == InstructionSet::kPortable) return "Portable";
  return info.param == InstructionSet::kAvx2 ? "Avx2" : "Avx512";
}

}  // namespace troupe::cpu

#endif  // TROUPE_TESTS_UNIT_FUSED_CPU_ALIGNED_ROWS_H_
