#ifndef TROUPE_REPLAY_SERVER_HUGE_PAGES_H_
#define TROUPE_REPLAY_SERVER_HUGE_PAGES_H_

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace troupe {

// Memory that is read here and there, a page at each access: what is larger than a huge page lies
// in huge pages, if the system lends them to those who ask, so that finding the page does not cost
// as much as the access.
template <typename T>
struct HugePageAllocator {
  using value_type = T;

  HugePageAllocator() = default;
  template <typename U>
  HugePageAllocator(const HugePageAllocator<U>&) {}  // NOLINT(google-explicit-constructor)

  T* allocate(size_t n) {
    const size_t alignment =
        n * sizeof(T) < kHugePageBytes ? std::max(alignof(T), sizeof(void*)) : kHugePageBytes;
    const size_t size_bytes = (n * sizeof(T) + alignment - 1) / alignment * alignment;
    void* memory = std::aligned_alloc(alignment, size_bytes);
    if (memory == nullptr) throw std::bad_alloc();
    if (alignment == kHugePageBytes) madvise(memory, size_bytes, MADV_HUGEPAGE);
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t) { std::free(memory); }

  friend bool operator==(const HugePageAllocator&, const HugePageAllocator&) { return true; }

 private:
  static constexpr size_t kHugePageBytes = 2 << 20;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_HUGE_PAGES_H_
