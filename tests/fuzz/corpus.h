#ifndef TROUPE_TESTS_FUZZ_CORPUS_H_
#define TROUPE_TESTS_FUZZ_CORPUS_H_

#include <filesystem>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {

inline const std::string kZero(1, '\0');

// Writes tests/fuzz/corpus/<target>/<seed>.
class Corpus final {
 public:
  explicit Corpus(std::filesystem::path repository) : repository_(std::move(repository)) {}

  const std::filesystem::path& repository() const { return repository_; }
  void Add(const std::string& target, const std::string& seed, absl::string_view bytes) const {
    const std::filesystem::path folder = repository_ / "tests/fuzz/corpus" / target;
    std::filesystem::create_directories(folder);
    WriteWhole((folder / seed).string(), bytes);
  }

 private:
  const std::filesystem::path repository_;
};

// Of corpus_messages.cc.
void AddMessages(const Corpus& corpus);

}  // namespace troupe

#endif  // TROUPE_TESTS_FUZZ_CORPUS_H_
