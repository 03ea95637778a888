// How the sanitizers behave in every program of a sanitized build, however it is started.
// Environment variables (ASAN_OPTIONS, TSAN_OPTIONS, ...) come on top of this.

extern "C" const char* __asan_default_options() {
  return "detect_stack_use_after_return=1:check_initialization_order=1";
}

// Debian's c-ares 1.18, with which gRPC looks up names, loses a few bytes for each "localhost".
extern "C" const char* __lsan_default_suppressions() { return "leak:libcares.so\n"; }

extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1"; }

// gRPC, Abseil, protobuf and libstdc++ are Debian's and not instrumented: what their functions do
// to memory is not looked at, what they do to locks is.  A program ends at its first race, so that
// one that a test kills in the end, or whose exit status nobody reads, cannot hide it.
extern "C" const char* __tsan_default_options() {
  return "ignore_noninstrumented_modules=1:halt_on_error=1:history_size=4";
}

// gRPC's executor may have ended a thread, and not yet joined it, where a program ends right after
// its last call.
extern "C" const char* __tsan_default_suppressions() { return "thread:libgpr.so\n"; }
