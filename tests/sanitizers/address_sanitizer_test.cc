// An address- and undefined-sanitized build ends at what it is for, in our code and below it.
#include <gtest/gtest.h>

#include <climits>
#include <cstring>
#include <memory>
#include <vector>

namespace troupe {
namespace {

// What the optimizer does not see through.
template <typename T>
T Opaque(T value) {
  asm volatile("" : "+r"(value) : : "memory");
  return value;
}

TEST(AddressSanitizer, EndsAtAReadBehindAnAllocation) {
  const auto bytes = std::make_unique<char[]>(64);
  EXPECT_DEATH(Opaque(bytes.get()[Opaque(64)]), "heap-buffer-overflow");
}

TEST(AddressSanitizer, EndsAtACopyBehindAnAllocation) {
  const auto bytes = std::make_unique<char[]>(64);
  EXPECT_DEATH(std::memset(bytes.get(), 1, Opaque(size_t{65})), "heap-buffer-overflow");
}

TEST(AddressSanitizer, EndsAtAUseAfterFree) {
  auto* bytes = Opaque(new char[64]());
  delete[] bytes;
  EXPECT_DEATH(Opaque(Opaque(bytes)[0]), "heap-use-after-free");
}

TEST(AddressSanitizer, EndsAtAUseOfTheStackAfterReturn) {
  const auto dangling = [] {
    char local[64] = {};
    return Opaque(&local[0]);
  };
  EXPECT_DEATH(Opaque(*dangling()), "stack-use-after");
}

TEST(AddressSanitizer, EndsWithALeak) {
  EXPECT_EXIT(
      {
        Opaque(new char[64]);
        std::exit(0);
      },
      [](int status) { return status != 0; }, "detected memory leaks");
}

TEST(UndefinedSanitizer, EndsAtASignedOverflow) {
  EXPECT_DEATH(Opaque(Opaque(INT_MAX) + 1), "signed integer overflow");
}

TEST(UndefinedSanitizer, EndsAtAShiftBeyondTheWidth) {
  EXPECT_DEATH(Opaque(1 << Opaque(40)), "shift exponent");
}

TEST(UndefinedSanitizer, EndsAtAMisalignedLoad) {
  alignas(8) char bytes[16] = {};
  EXPECT_DEATH(Opaque(*reinterpret_cast<int*>(Opaque(&bytes[0]) + 1)), "misaligned address");
}

}  // namespace
}  // namespace troupe
