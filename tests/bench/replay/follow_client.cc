#include "tests/bench/replay/follow_client.h"

#include <utility>

#include "absl/types/span.h"
#include "proto/replay.pb.h"

namespace troupe {

FollowClient::FollowClient(std::shared_ptr<grpc::Channel> channel, const FollowLoad& load,
                           const Measuring* measuring)
    : StreamClient(std::move(channel), "/troupe.proto.Replay/Follow", measuring), load_(load) {}

void FollowClient::Receive(const grpc::ByteBuffer& message) {
  if (!DecodeFollowed(message, &batch_)) ++wrong_replies_;
  size_t at = 0;
  for (const FollowedRun& run : batch_.runs) {
    const absl::Span<const uint8_t> rows = absl::MakeSpan(batch_.rows).subspan(at, run.size_bytes);
    wrong_rows_ += CountWrongRows(*load_.patterns, rows, run.stream, run.first_row);
    at += run.size_bytes;
  }
}

void FollowClient::HandleReceived() {
  const auto rows =
      static_cast<int64_t>(batch_.rows.size()) / load_.patterns->layout.stride_bytes();
  tally_.units.fetch_add(rows, std::memory_order_relaxed);
  if (batch_.runs.empty() && !caught_up_.HasBeenNotified()) caught_up_.Notify();
}

bool FollowClient::NextMessage(grpc::ByteBuffer* message) {
  if (asked_) {
    CloseWrites();
    return false;
  }
  asked_ = true;
  proto::FollowRequest request;
  request.set_run(load_.run);
  request.set_table(load_.table);
  *message = Encode(request);
  return true;
}

void FollowClient::HandleEnd() {
  if (!caught_up_.HasBeenNotified()) caught_up_.Notify();
}

}  // namespace troupe
