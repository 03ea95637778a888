#include "deploy/operator/evaluate.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "common/program.h"

namespace troupe {
namespace {

std::string ActorPath() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "troupe-actor").string();
}

}  // namespace

int BecomeEvaluator(const std::vector<std::string>& flags) {
  std::vector<std::string> words = {ActorPath(), "--evaluate", "--once", "--log_level=warning",
                                    "--metrics_port=-1"};
  words.insert(words.end(), flags.begin(), flags.end());
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  execv(pointers[0], pointers.data());
  std::fprintf(stderr, "troupe evaluate: cannot start %s: %s\n", pointers[0], strerror(errno));
  return kExitFailure;
}

}  // namespace troupe
