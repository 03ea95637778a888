#ifndef TROUPE_COMMON_FOLLOW_CLIENT_H_
#define TROUPE_COMMON_FOLLOW_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/credentials.h"
#include "common/row_codec.h"
#include "common/shard_directory.h"
#include "proto/replay.pb.h"

namespace troupe {

struct FollowClientOptions {
  std::vector<std::string> shards;  // host:port; each is one, unless there is a directory
  std::shared_ptr<ShardDirectory> directory = {};
  std::shared_ptr<const Credentials> credentials = Credentials::Plaintext();
  std::string run;
  std::string table;
  int64_t capacity_rows = 0;  // of each shard's table
  int64_t stride_bytes = 0;   // of a packed row
  // Of a layout with compressed columns: rows are decoded as they come.  Null: they come packed.
  std::shared_ptr<const RowCodec> codec = {};
  int32_t max_replies = 16;  // of one shard, received and not taken; a reply has 256 KiB
  absl::Duration reconnect_min = absl::Milliseconds(50);
  absl::Duration reconnect_max = absl::Seconds(2);
};

struct FollowStats {
  uint64_t rows = 0;         // received, some of them twice where a table was followed anew
  uint64_t rows_behind = 0;  // stored by shards and not received, as of the shards' last replies
  uint64_t rows_missed = 0;  // at most so many were evicted before they could be received
  int64_t reconnects = 0;    // calls that broke or failed
  int64_t restarts = 0;      // of a shard from its first row, because it is not what it was
  int32_t shards_up = 0;
  // Of every shard that can be reached, next to everything that it stores was once received.
  bool caught_up = false;
};

// Every row that the shards store, once, the rows of a stream in their order: Follow calls of all
// shards together.
//
// A call that breaks is made anew and goes on where it was.  A shard that does not know the place,
// because it lost rows or is another one, is followed anew from its first row, so that rows may
// come again.  What the caller does not take is not read: the shards keep it until their rings
// turn.
//
// Thread-safe, but for Next, which one thread calls; calls are made anew in there.
class FollowClient final {
 public:
  // INVALID_ARGUMENT names the option; FAILED_PRECONDITION as MakeChannel.
  static absl::StatusOr<std::unique_ptr<FollowClient>> Create(FollowClientOptions options);
  ~FollowClient();

  // The next reply with rows of any shard.  DEADLINE_EXCEEDED: none has come; with a deadline in
  // the past it does not wait.  CANCELLED after Stop; a shard's permanent error at once.
  absl::StatusOr<proto::FollowReply> Next(absl::Time deadline);

  FollowStats stats() const;

  // Wakes every waiter, for good.
  void Stop();

 private:
  class Impl;
  explicit FollowClient(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_FOLLOW_CLIENT_H_
