#ifndef TROUPE_REPLAY_SERVER_WIRE_H_
#define TROUPE_REPLAY_SERVER_WIRE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "proto/replay.pb.h"
#include "replay_server/follower.h"
#include "replay_server/row_run.h"
#include "replay_server/sample_batch.h"

// The messages that carry rows, read and written without the copies that generated code makes: an
// append this way takes the server 0.6 of the time (shared/prototypes/row_log).  On the wire they
// are what proto/replay.proto says.
namespace troupe {

// An AppendRequest as it came.  Not thread-safe.
class AppendMessage final {
 public:
  // Takes the bytes over.  INVALID_ARGUMENT: not an AppendRequest.
  absl::Status Parse(grpc::ByteBuffer* bytes);

  bool has_open() const { return has_open_; }
  bool drained() const { return drained_; }
  const proto::AppendOpen& open() const { return open_; }
  uint64_t size_bytes() const { return bytes_.size(); }
  // In the order of the message; valid until the next Parse() or Clear().
  absl::Span<const RowRunView> runs() const { return runs_; }
  // Gives the bytes back.
  void Clear();

 private:
  absl::Status ParseFields(const uint8_t* data, int size_bytes);

  grpc::Slice bytes_;
  bool has_open_ = false;
  bool drained_ = false;
  proto::AppendOpen open_;
  std::vector<RowRunView> runs_;
};

// The SampleReply of a batch, which is empty after that.
grpc::ByteBuffer EncodeSampleReply(SampleBatch* batch);

// The FollowReply of a batch, which is empty after that.
grpc::ByteBuffer EncodeFollowReply(FollowBatch* batch);

// Any message of the size that generated code is meant for.
grpc::ByteBuffer EncodeMessage(const google::protobuf::MessageLite& message);
// INVALID_ARGUMENT: not a message of this type.  The buffer is emptied.
absl::Status DecodeMessage(grpc::ByteBuffer* bytes, google::protobuf::MessageLite* message);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_WIRE_H_
