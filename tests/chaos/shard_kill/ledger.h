#ifndef TROUPE_TESTS_CHAOS_SHARD_KILL_LEDGER_H_
#define TROUPE_TESTS_CHAOS_SHARD_KILL_LEDGER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace troupe {

// One ack as it lies in the file.
struct LedgerEntry {
  uint64_t stream;
  uint64_t held_rows;
  uint32_t rows_crc32c;  // of all rows of the stream with smaller numbers
  uint32_t check;        // CRC-32C of all above
};
static_assert(sizeof(LedgerEntry) == 24);

// A file of acks.  What was recorded is synced to the disk in groups by a thread of its own, and
// counted only then.  Thread-safe.
class Ledger final {
 public:
  static absl::StatusOr<std::unique_ptr<Ledger>> Create(const std::string& path);
  ~Ledger();

  // `new_rows` of the stream's rows were not acked before.
  void Record(uint64_t stream, uint64_t held_rows, uint32_t rows_crc32c, uint64_t new_rows);
  // Waits until all that was recorded is on the disk.
  absl::Status Flush();
  // Rows acked, as far as that is on the disk.
  uint64_t acked_rows() const;

  // The entries of each stream in the order in which they were recorded.
  static absl::StatusOr<std::map<uint64_t, std::vector<LedgerEntry>>> Read(const std::string& path);

 private:
  explicit Ledger(int fd);
  void SyncGroups();
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return closing_ || !waiting_.empty(); }
  bool IsIdle() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return !status_.ok() || (waiting_.empty() && !syncing_);
  }

  const int fd_;
  mutable absl::Mutex mu_;
  std::vector<LedgerEntry> waiting_ ABSL_GUARDED_BY(mu_);
  uint64_t waiting_rows_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t acked_rows_ ABSL_GUARDED_BY(mu_) = 0;
  bool syncing_ ABSL_GUARDED_BY(mu_) = false;
  bool closing_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // the last to be made
};

}  // namespace troupe

#endif  // TROUPE_TESTS_CHAOS_SHARD_KILL_LEDGER_H_
