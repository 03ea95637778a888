#include "tests/bench/replay/append_client.h"

#include <algorithm>
#include <random>
#include <utility>

#include "tests/bench/replay/messages.h"

namespace troupe {

AppendClient::AppendClient(std::shared_ptr<grpc::Channel> channel, const AppendLoad& load,
                           const Measuring* measuring)
    : StreamClient(std::move(channel), "/troupe.proto.Replay/Append", measuring), load_(load) {
  std::random_device random;
  for (int64_t i = 0; i < load.runs; ++i) {
    streams_.emplace_back(load.patterns, uint64_t{random()} << 32 | random());
  }
}

void AppendClient::Receive(const grpc::ByteBuffer& message) {
  // What cannot be read acks nothing, and the load stops, which shows.
  if (!Decode(message, &reply_)) reply_.Clear();
}

void AppendClient::HandleReceived() {
  if (!opened_) {
    opened_ = true;
    opened_at_ = Clock::now();
  }
  held_back_ = reply_.held_back();
  for (const proto::StreamAck& ack : reply_.acks()) {
    // A message is stored in the order of its runs, so the last one answers for all.
    if (ack.stream() != streams_.back().stream()) continue;
    while (!unacked_.empty() && unacked_.front().end_row <= ack.held_rows()) {
      const Unacked& message = unacked_.front();
      unacked_bytes_ -= message.bytes;
      tally_.units.fetch_add(message.rows, std::memory_order_relaxed);
      NoteLatency(measuring_, message.sent, &tally_);
      unacked_.pop_front();
    }
  }
}

bool AppendClient::NextMessage(grpc::ByteBuffer* message) {
  if (opening_) {
    opening_ = false;
    proto::AppendRequest request;
    request.mutable_open()->set_run(load_.run);
    request.mutable_open()->set_table(load_.table);
    *request.mutable_open()->mutable_layout() = load_.patterns->layout.proto();
    *message = Encode(request);
    return true;
  }
  if (load_.rows > 0 && sent_rows_ >= load_.rows && unacked_.empty()) CloseWrites();
  const int64_t rows_each = RowsDue();
  if (rows_each == 0) return false;
  *message = EncodeRows(absl::MakeSpan(streams_), rows_each);
  const int64_t rows = rows_each * load_.runs;
  const auto bytes = static_cast<int64_t>(message->Length());
  unacked_.push_back({streams_.back().next_row(), rows, bytes, Clock::now()});
  unacked_bytes_ += bytes;
  sent_rows_ += rows;
  return true;
}

int64_t AppendClient::RowsDue() {
  if (!opened_ || held_back_) return 0;
  const int64_t run_bytes = load_.patterns->layout.stride_bytes() * load_.runs;
  int64_t rows_each = std::max<int64_t>(1, load_.message_bytes / run_bytes);
  if (!unacked_.empty() && unacked_bytes_ + rows_each * run_bytes > load_.window_bytes) return 0;
  if (load_.rows > 0) {
    rows_each = std::min(rows_each, (load_.rows - sent_rows_ + load_.runs - 1) / load_.runs);
  }
  if (load_.rows_per_second > 0) {
    const double due =
        std::chrono::duration<double>(Clock::now() - opened_at_).count() * load_.rows_per_second;
    if (static_cast<double>(sent_rows_ + rows_each * load_.runs) > due) return 0;
  }
  return rows_each;
}

}  // namespace troupe
