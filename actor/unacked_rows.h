#ifndef TROUPE_ACTOR_UNACKED_ROWS_H_
#define TROUPE_ACTOR_UNACKED_ROWS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "common/row_sizes.h"
#include "proto/replay.pb.h"

namespace troupe {

// One message of packed rows.
struct RowMessage {
  proto::AppendRequest request;
  int64_t row_bytes = 0;
  int64_t num_rows = 0;
};

// A stream that goes on under a new name because the shard lost the acked beginning of it.
struct StreamRename {
  uint64_t from = 0;
  uint64_t to = 0;
  int64_t lost_rows = 0;  // row numbers shrink by this
};

// The rows that one shard has not acked, in the order in which they were appended.
//
// Not thread-safe.  Keeps the writer's side of the contract: acks are cumulative, what was sent may
// be sent again, and no stream ever has a gap.
class UnackedRows final {
 public:
  struct Stream {
    int64_t env = 0;
    bool open = true;      // may get more rows
    int64_t appended = 0;  // rows pushed, less those dropped
    int64_t sent = 0;      // highest number of rows that ever went out
    int64_t acked = 0;
  };

  explicit UnackedRows(const RowSizes& sizes) : sizes_(sizes) {}

  void BeginStream(uint64_t id, int64_t env);
  void EndStreams();  // none gets more rows
  void Push(std::unique_ptr<RowMessage> message);

  // The oldest message not sent since the last Resume, now counted as sent; nullptr if there is
  // none or it would take more than `window_bytes` of what is sent and unacked.
  std::shared_ptr<const RowMessage> NextToSend(int64_t window_bytes);

  // INTERNAL: the shard acks what it never got.
  absl::Status Ack(const proto::AppendReply& reply);

  // After a reconnect: forgets what was sent and cuts off what `reply` says is held.  `make_id`
  // names the streams that must begin anew.  INTERNAL as Ack.
  absl::Status Resume(const proto::AppendReply& reply, const std::function<uint64_t()>& make_id,
                      std::vector<StreamRename>* renames);

  // Gives up the newest message.  Returns the rows that went with it; 0: there is none.
  int64_t DropNewest();

  // Streams that Resume must hear of: open ones, and those with unacked rows.
  std::vector<uint64_t> LiveStreams() const;
  const absl::flat_hash_map<uint64_t, Stream>& streams() const { return streams_; }

  bool empty() const { return queue_.empty(); }
  int64_t bytes() const { return bytes_; }            // of all messages kept
  int64_t num_rows() const { return num_rows_; }      // the same
  int64_t rows_acked() const { return rows_acked_; }  // ever

 private:
  absl::Status CheckAck(const proto::StreamAck& ack) const;
  void RecordAck(Stream& stream, int64_t held);
  void PopAcked();
  bool IsAcked(const RowMessage& message) const;
  void Rename(const StreamRename& rename);
  void Trim();
  void TrimMessage(RowMessage& message);
  int64_t NumRows(const proto::RowRun& run) const {
    return static_cast<int64_t>(sizes_.Count(run.rows()).value_or(0));
  }

  const RowSizes sizes_;
  absl::flat_hash_map<uint64_t, Stream> streams_;
  std::deque<std::shared_ptr<RowMessage>> queue_;
  size_t num_sent_ = 0;  // messages at the front of the queue that are sent
  int64_t sent_bytes_ = 0;
  int64_t bytes_ = 0;
  int64_t num_rows_ = 0;
  int64_t rows_acked_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_UNACKED_ROWS_H_
