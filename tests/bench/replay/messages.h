#ifndef TROUPE_TESTS_BENCH_REPLAY_MESSAGES_H_
#define TROUPE_TESTS_BENCH_REPLAY_MESSAGES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "grpcpp/support/byte_buffer.h"
#include "tests/bench/replay/rows.h"

namespace troupe {

// Messages as raw byte buffers in protobuf's wire format.  Rows and windows, which are nearly all
// of the bytes, are written and read in place; the small messages go through the generated code.

grpc::ByteBuffer Encode(const google::protobuf::MessageLite& message);
bool Decode(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite* message);

// An AppendRequest with the next `rows_each` rows of each of `streams`.
grpc::ByteBuffer EncodeRows(absl::Span<RowSource> streams, int64_t rows_each);

// What a load client looks at in a SampleReply.
struct SampledWindows {
  std::vector<uint8_t> windows;  // one after another
  std::vector<uint64_t> row_ids;
  std::vector<float> probabilities;
  double mass = 0;
  uint64_t inserted = 0;
  uint64_t sampled = 0;
};

// Copies a SampleReply out of its slices into `reply`, whose buffers are used again.  False: the
// bytes are no such message.
bool DecodeWindows(const grpc::ByteBuffer& bytes, SampledWindows* reply);

// What a load client looks at in a FollowReply: its rows, run after run, and whose they are.
struct FollowedRun {
  uint64_t stream = 0;
  uint64_t first_row = 0;
  size_t size_bytes = 0;
};
struct FollowedBatch {
  std::vector<uint8_t> rows;
  std::vector<FollowedRun> runs;
};

// The same for a FollowReply.
bool DecodeFollowed(const grpc::ByteBuffer& bytes, FollowedBatch* batch);

}  // namespace troupe

#endif  // TROUPE_TESTS_BENCH_REPLAY_MESSAGES_H_
