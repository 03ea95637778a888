#ifndef TROUPE_TESTS_CHAOS_SHARD_KILL_FINDINGS_H_
#define TROUPE_TESTS_CHAOS_SHARD_KILL_FINDINGS_H_

#include <cstdint>
#include <iostream>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"

namespace troupe {

// What went wrong.
struct FindingCounts {
  uint64_t lost = 0;     // acked rows that are not there
  uint64_t doubled = 0;  // rows that are there twice, or counted twice, or that nobody sent
  uint64_t altered = 0;  // rows with other bytes than were sent
  uint64_t corrupt_blocks = 0;
  uint64_t others = 0;  // a server that ends by itself or does not answer, and the like
};

// Every finding in words on stderr, and counted.  Thread-safe.
class Findings final {
 public:
  void Lost(uint64_t rows, const std::string& words) { Add(&FindingCounts::lost, rows, words); }
  void Doubled(uint64_t rows, const std::string& words) {
    Add(&FindingCounts::doubled, rows, words);
  }
  void Altered(uint64_t rows, const std::string& words) {
    Add(&FindingCounts::altered, rows, words);
  }
  void Corrupt(uint64_t blocks, const std::string& words) {
    Add(&FindingCounts::corrupt_blocks, blocks, words);
  }
  void Other(const std::string& words) { Add(&FindingCounts::others, 1, words); }

  FindingCounts counts() const {
    absl::MutexLock lock(&mu_);
    return counts_;
  }
  bool any() const {
    const FindingCounts found = counts();
    return found.lost + found.doubled + found.altered + found.corrupt_blocks + found.others > 0;
  }

 private:
  void Add(uint64_t FindingCounts::*count, uint64_t number, const std::string& words) {
    absl::MutexLock lock(&mu_);
    counts_.*count += number;
    std::cerr << "troupe-shard-kill: " << words << std::endl;
  }

  mutable absl::Mutex mu_;
  FindingCounts counts_ ABSL_GUARDED_BY(mu_);
};

inline std::string StreamName(uint64_t stream) { return absl::StrFormat("stream %016x", stream); }

}  // namespace troupe

#endif  // TROUPE_TESTS_CHAOS_SHARD_KILL_FINDINGS_H_
