// The smallest program on common/program.h; program_test.py drives it.
#include <cstdio>
#include <stdexcept>

#include "absl/flags/flag.h"
#include "absl/time/clock.h"
#include "common/program.h"

ABSL_FLAG(std::string, what, "config", "config, wait, fail or throw.");
ABSL_FLAG(bool, twice, false, "Say it twice.");

namespace {

absl::Status Run(troupe::Program& program) {
  const std::string what = absl::GetFlag(FLAGS_what);
  if (what == "wait") {
    std::puts("waiting");
    std::fflush(stdout);
    program.stop.Wait();
    std::puts("stopped");
    return absl::OkStatus();
  }
  if (what == "hang") {
    std::puts("waiting");
    std::fflush(stdout);
    for (;;) absl::SleepFor(absl::Hours(1));
  }
  if (what == "fail") return absl::UnavailableError("the shard at nowhere:1 is gone");
  if (what == "throw") throw std::runtime_error("surprise");
  for (int i = 0; i < (absl::GetFlag(FLAGS_twice) ? 2 : 1); ++i) {
    std::printf("%s", program.config.ShortDebugString().c_str());
  }
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  return troupe::RunProgram({"troupe-test", "Does what --what says."}, argc, argv, Run);
}
