#include "deploy/operator/python.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>

#include "common/program.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCommands[] = {"export", "card", "play", "plot"};

// The words after it are this command line's; the first is the folder of a build's package.
constexpr char kStart[] = R"(
import sys
folder = sys.argv.pop(1)
if folder: sys.path.insert(0, folder)
try:
    from troupe.__main__ import main
except ModuleNotFoundError as error:
    sys.exit(f"troupe {sys.argv[1]}: {sys.executable} has no package {error.name}: from a checkout, "
             "pip install './actor/python[export,play]', or let TROUPE_PYTHON name an interpreter "
             "that has it")
sys.exit(main(sys.argv[1:]))
)";

// build/PRESET of build/PRESET/bin/troupe.
fs::path BuildFolder() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path().parent_path();
}

std::string Interpreter() {
  if (const char* named = std::getenv("TROUPE_PYTHON"); named != nullptr && *named != '\0') {
    return named;
  }
  const fs::path of_build = BuildFolder().parent_path() / "venv" / "bin" / "python3";
  std::error_code error;
  return fs::exists(of_build, error) ? of_build.string() : "python3";
}

std::string Package() {
  const fs::path package = BuildFolder() / "python";
  std::error_code error;
  return fs::exists(package / "troupe" / "__main__.py", error) ? package.string() : "";
}

}  // namespace

bool IsPythons(const std::string& command) {
  return std::find(std::begin(kCommands), std::end(kCommands), command) != std::end(kCommands);
}

int BecomePython(const std::vector<std::string>& words) {
  std::vector<std::string> line = {Interpreter(), "-c", kStart, Package()};
  line.insert(line.end(), words.begin(), words.end());
  std::vector<char*> pointers;
  pointers.reserve(line.size() + 1);
  for (std::string& word : line) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  execvp(pointers[0], pointers.data());
  std::fprintf(stderr, "troupe %s: cannot start %s, which TROUPE_PYTHON may name: %s\n",
               words.front().c_str(), pointers[0], strerror(errno));
  return kExitFailure;
}

}  // namespace troupe
