// Finds the library's own definition of a function that this program defines once more.
#ifndef TROUPE_TESTS_SANITIZERS_NEXT_DEFINITION_H_
#define TROUPE_TESTS_SANITIZERS_NEXT_DEFINITION_H_

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace troupe {

// The definition after ours, of the same mangled name.  Ends the program if ours is not exported,
// as then the libraries do not call it, or if there is no other.
inline void* NextAddress(void* ours) {
  Dl_info info;
  void* next = nullptr;
  if (dladdr(ours, &info) != 0 && info.dli_saddr == ours) next = dlsym(RTLD_NEXT, info.dli_sname);
  if (next == nullptr) {
    std::fprintf(stderr, "a function that ThreadSanitizer must see is not found: %s\n", dlerror());
    std::abort();
  }
  return next;
}

// Next<&Class::Member>() or Next<&Function>(): a pointer of the same type to that definition.
template <auto kOurs>
auto Next() {
  static const auto next = [] {
    auto pointer = kOurs;
    void* address;
    std::memcpy(&address, &pointer, sizeof(address));  // MemberAddress::function, or all of it
    address = NextAddress(address);
    std::memcpy(&pointer, &address, sizeof(address));
    return pointer;
  }();
  return next;
}

}  // namespace troupe

#endif  // TROUPE_TESTS_SANITIZERS_NEXT_DEFINITION_H_
