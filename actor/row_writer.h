#ifndef TROUPE_ACTOR_ROW_WRITER_H_
#define TROUPE_ACTOR_ROW_WRITER_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/credentials.h"
#include "common/layout.h"
#include "common/shard_directory.h"
#include "proto/config.pb.h"

namespace troupe {

struct RowWriterOptions {
  std::vector<std::string> shards;  // host:port; each is one, unless there is a directory
  std::shared_ptr<ShardDirectory> directory = {};
  int64_t first_shard = 0;  // actor_index; as ShardDirectory::Choose
  std::shared_ptr<const Credentials> credentials = Credentials::Plaintext();
  std::string run;
  std::string table;
  int64_t num_envs = 1;  // one stream each
  // As in proto/config.proto's Actor.
  int64_t max_unacked_bytes = int64_t{256} << 10;
  int64_t max_unacked_rows = std::numeric_limits<int64_t>::max();  // another bound of the same
  int64_t message_bytes = 65536;
  absl::Duration max_delay = absl::Milliseconds(5);
  absl::Duration reconnect_min = absl::Milliseconds(50);
  absl::Duration reconnect_max = absl::Seconds(2);
  absl::Duration move_after = absl::Seconds(10);
  // Levels of the layout's compressed columns.
  std::vector<proto::ColumnCompression> compression = {};
};

struct RowWriterStats {
  int64_t rows_appended = 0;  // accepted by Append
  int64_t rows_acked = 0;     // held by a shard, as it said
  int64_t rows_dropped = 0;   // given up; never acked
  int64_t unacked_bytes = 0;
  int64_t reconnects = 0;       // connections that broke or failed
  int64_t moves = 0;            // to another shard
  int64_t streams_renamed = 0;  // begun anew because a shard had lost acked rows
  int32_t shard = 0;            // that new rows go to; its number in the directory
  bool connected = false;       // to that shard
  absl::Duration blocked;       // total time that Append has waited for room
};

// What became of one stream: rows [0, acked_rows) are held by `shard`.
struct RowStream {
  uint64_t id = 0;
  int64_t env = 0;
  int32_t shard = 0;  // its number in the directory; that in the configured list without names
  int64_t appended_rows = 0;
  int64_t acked_rows = 0;
};

// Brings the rows of `num_envs` environments to a shard, each exactly once.
//
// Rows are packed in place into messages that are kept until they are acked, in a buffer of
// `max_unacked_bytes`, rows with compressed columns encoded; only when that is full, or from when
// the shard's rate limiter holds writers back until all is acked, does Append wait.  When the
// connection breaks, the writer reconnects, asks what the shard holds and sends the rest again.
// When its shard stays away for `move_after` and another one answers, new rows go there in new
// streams, until the shard is back; so they do when shards are added and another one is to be this
// writer's.  What the old one has not acked is kept for it; it gives way, newest rows first and
// counted, only when its memory is needed while the old shard is still away.  From a shard that is
// drained (Replay.Drain) new rows move at once, and where no other shard takes them Append waits;
// what was made before is still sent there.
//
// Thread-safe.  The work is done by gRPC's callback threads and one thread for timers.
class RowWriter final {
 public:
  // Starts connecting.  INVALID_ARGUMENT names the option; FAILED_PRECONDITION as MakeChannel.
  static absl::StatusOr<std::unique_ptr<RowWriter>> Create(RowWriterOptions options,
                                                           const Layout& layout);
  ~RowWriter();  // stops; what is not acked by then is lost

  // Waits until a shard has accepted the layout.  DEADLINE_EXCEEDED says what it answered.
  absl::Status WaitConnected(absl::Time deadline);

  // Calls `pack` once with the zeroed bytes of the next row of environment `env`, which it fills as
  // the layout says, header included.  `pack` runs under the writer's lock: it only copies.
  // Waits while the buffer is full or the shard holds writers back.  Returns the row's number in
  // its stream, which begins anew at 0 when the rows go to another shard.  CANCELLED after Stop; a
  // shard's permanent error (another run, another layout, no such table) at once; then `pack` was
  // not called.
  absl::StatusOr<uint64_t> Append(int64_t env, absl::FunctionRef<void(absl::Span<char> row)> pack);

  // Of the shard that new rows go to, for messages.
  std::string shard_name() const;

  // Sends what is there now instead of when a message is full or old.
  absl::Status SendNow();

  // Sends what is there and waits until all of it is acked.  DEADLINE_EXCEEDED says what is missing
  // and where.
  absl::Status Flush(absl::Time deadline);

  // How often a learner has asked for another unroll by policy `version`.
  int64_t UnrollRequests(uint64_t version) const;

  // OK, or the permanent error of a shard.
  absl::Status status() const;
  RowWriterStats stats() const;
  // The streams that rows go to now, and the earlier ones of this writer, oldest first.
  std::vector<RowStream> streams() const;

  // Wakes every waiter, for good.
  void Stop();

 private:
  class Impl;
  explicit RowWriter(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_ROW_WRITER_H_
