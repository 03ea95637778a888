#ifndef TROUPE_ACTOR_LEDGER_H_
#define TROUPE_ACTOR_LEDGER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "actor/row_writer.h"

namespace troupe {

// Writes down, beside a running actor, which rows the shards have acked, so that somebody can hold
// the shards to it after a crash.
//
// One JSON line for each stream with new acks: {"stream":"<16 hex digits>","shard":i,"acked":n}
// says that shard i had acked rows [0, n) before the line was written.  Lines are flushed to the
// disk every 50 ms and at Close(); kill -9 may tear the last one, so every incarnation of an actor
// takes a file of its own.
//
// Not thread-safe.  One thread of its own writes; the writer must outlive the ledger.
class Ledger final {
 public:
  // Errors name the path.
  static absl::StatusOr<std::unique_ptr<Ledger>> Open(const std::string& path,
                                                      const RowWriter& writer);
  ~Ledger();

  // Writes what is left and ends the thread.  Returns the first error that there was.
  absl::Status Close();

 private:
  Ledger(std::string path, int fd, const RowWriter& writer);
  void Run();
  absl::Status Record();

  const std::string path_;
  const int fd_;
  const RowWriter& writer_;
  absl::Notification stop_;
  // Used by the thread only, and by Close() once that has ended.
  absl::flat_hash_map<uint64_t, int64_t> recorded_;  // acked rows by stream
  absl::Status status_;
  std::thread thread_;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_LEDGER_H_
