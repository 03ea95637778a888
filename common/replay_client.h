#ifndef TROUPE_COMMON_REPLAY_CLIENT_H_
#define TROUPE_COMMON_REPLAY_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/credentials.h"
#include "common/layout.h"
#include "common/rate_limit.h"
#include "common/shard_directory.h"
#include "common/window_batch.h"

namespace troupe {

struct ReplayClientOptions {
  std::vector<std::string> shards;  // host:port; each is one, unless there is a directory
  std::shared_ptr<ShardDirectory> directory = {};
  std::shared_ptr<const Credentials> credentials = Credentials::Plaintext();
  std::string run;
  std::string table;
  int64_t batch_size = 256;      // windows
  int64_t prefetch_batches = 8;  // asked for ahead
  RateLimit rate_limit;          // queue_length is the shards' alone
  uint64_t seed = 1;             // of the split of batches over shards
  // A window leaves its table once it was sampled, and this is the only one who samples: no shard
  // is asked for more windows than it has.
  bool samples_once = false;
  absl::Duration reconnect_min = absl::Milliseconds(50);
  absl::Duration reconnect_max = absl::Seconds(2);
  // How long a shard may hold back a request before the client splits it anew.
  absl::Duration request_timeout = absl::Seconds(1);
  // How much longer a shard may say nothing before it is taken for gone, as one that is stopped or
  // cut off: long before the connection's keepalive notices.
  absl::Duration silence_timeout = absl::Seconds(3);
};

// What the shards say of the table.
struct TableInfo {
  Layout layout;
  int64_t window_length = 0;  // rows
  int64_t window_stride = 0;  // rows
  uint64_t max_epoch = 0;     // of any snapshot that a reachable shard ever accepted
  int32_t shards_reached = 0;
};

// Counts summed over the shards, with the last known ones of a shard that is gone.
struct ReplayCounts {
  uint64_t env_steps = 0;  // rows stored that are not final
  uint64_t inserted = 0;   // windows
  uint64_t sampled = 0;    // windows
  uint64_t preloaded = 0;  // windows
};

struct ReplayClientStats {
  int64_t batches = 0;        // handed out
  int64_t redistributed = 0;  // windows asked for again, of another shard or later
  int64_t reconnects = 0;     // connections that broke or failed
  int64_t buffers = 0;        // batch buffers allocated
  int32_t shards_up = 0;
  absl::Duration starved;  // time in which the rate limiter let nothing be asked for
  double mass = 0;         // of the selectors of the shards that are up
  // New priorities given to UpdatePriorities: sent to their shard, and dropped because it was gone.
  int64_t priorities_sent = 0;
  int64_t priorities_dropped = 0;
};

// Batches of windows drawn from all shards as if they were one table.
//
// Each batch is split over the shards by their mass, `prefetch_batches` are under way at any time,
// and a shard that is gone is left out, its part drawn from the others, until it is back.
// Thread-safe.  The work is done by gRPC's callback threads and one thread for timers.
class ReplayClient final {
 public:
  // INVALID_ARGUMENT names the option; FAILED_PRECONDITION as MakeChannel.
  static absl::StatusOr<std::unique_ptr<ReplayClient>> Create(ReplayClientOptions options);
  ~ReplayClient();

  // Asks the shards until one of them knows the table's layout, which it does once the first actor
  // has connected.  DEADLINE_EXCEEDED says what each shard answered; FAILED_PRECONDITION: another
  // run, or layouts that differ; NOT_FOUND: no such table.
  absl::StatusOr<TableInfo> WaitForTable(absl::Time deadline);

  // The next batch.  The first call starts the prefetching.  DEADLINE_EXCEEDED says what it waits
  // for, with the numbers; CANCELLED after Stop; a shard's permanent error at once.
  // REQUIRES: WaitForTable returned OK.
  absl::StatusOr<WindowBatch> NextBatch(absl::Time deadline);

  // For a learner that draws windows from its own replica of the table, instead of NextBatch: how
  // many batches, at most `most`, the rate limiter admits now; waits until it is one.  They count
  // as sampled, and the shards are told.  Of several learners of one run one asks, for all of them.
  // Errors are NextBatch's.
  absl::StatusOr<int64_t> AdmitDraws(int64_t most, absl::Time deadline);

  // Sets priorities of windows, each named by the shard that it came from and its row id, as in
  // BatchBuffer.  They ride on the next request to that shard, or go by themselves if there is
  // none for some milliseconds; a shard that is gone gets none.  INVALID_ARGUMENT: the lengths
  // differ, there is no such shard, or a priority is not 0 to 1e30; then none is set.
  absl::Status UpdatePriorities(absl::Span<const int32_t> shards,
                                absl::Span<const uint64_t> row_ids,
                                absl::Span<const float> priorities);

  // For an on-policy learner that lacks windows of policy `version` while no rows come: asks the
  // writers that wait for the next policy for another unroll.  Shards that do not answer within a
  // short time are left out.  Returns the number of writers that were told.
  int64_t RequestUnrolls(uint64_t version);

  ReplayCounts counts() const;
  ReplayClientStats stats() const;

  // Wakes every waiter, for good.
  void Stop();

 private:
  class Impl;
  explicit ReplayClient(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_REPLAY_CLIENT_H_
