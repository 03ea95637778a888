#include "actor/unacked_rows.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

// Ended streams are remembered up to this many.
constexpr size_t kMaxStreams = 65536;

}  // namespace

void UnackedRows::BeginStream(uint64_t id, int64_t env) {
  if (streams_.size() >= kMaxStreams) {
    absl::erase_if(streams_, [](const auto& entry) {
      return !entry.second.open && entry.second.acked == entry.second.appended;
    });
  }
  streams_[id].env = env;
}

void UnackedRows::EndStreams() {
  for (auto& [id, stream] : streams_) stream.open = false;
}

void UnackedRows::Push(std::unique_ptr<RowMessage> message) {
  for (const proto::RowRun& run : message->request.runs()) {
    streams_[run.stream()].appended += NumRows(run);
  }
  bytes_ += message->row_bytes;
  num_rows_ += message->num_rows;
  queue_.push_back(std::move(message));
}

std::shared_ptr<const RowMessage> UnackedRows::NextToSend(int64_t window_bytes) {
  if (num_sent_ == queue_.size()) return nullptr;
  const std::shared_ptr<const RowMessage> message = queue_[num_sent_];
  if (num_sent_ > 0 && sent_bytes_ + message->row_bytes > window_bytes) return nullptr;
  for (const proto::RowRun& run : message->request.runs()) {
    Stream& stream = streams_[run.stream()];
    stream.sent = std::max<int64_t>(stream.sent, run.first_row() + NumRows(run));
  }
  ++num_sent_;
  sent_bytes_ += message->row_bytes;
  return message;
}

absl::Status UnackedRows::CheckAck(const proto::StreamAck& ack) const {
  const auto it = streams_.find(ack.stream());
  if (it == streams_.end()) {
    return absl::InternalError(absl::StrCat("ack of stream ", ack.stream(), ", never sent there"));
  }
  if (ack.held_rows() > static_cast<uint64_t>(it->second.sent)) {
    return absl::InternalError(absl::StrCat("ack of ", ack.held_rows(), " rows of stream ",
                                            ack.stream(), ", ", it->second.sent, " were sent"));
  }
  return absl::OkStatus();
}

void UnackedRows::RecordAck(Stream& stream, int64_t held) {
  held = std::min(held, stream.appended);  // the shard may hold rows that were given up here
  if (held <= stream.acked) return;
  rows_acked_ += held - stream.acked;
  stream.acked = held;
}

absl::Status UnackedRows::Ack(const proto::AppendReply& reply) {
  for (const proto::StreamAck& ack : reply.acks()) {
    if (absl::Status status = CheckAck(ack); !status.ok()) return status;
    RecordAck(streams_[ack.stream()], ack.held_rows());
  }
  PopAcked();
  return absl::OkStatus();
}

bool UnackedRows::IsAcked(const RowMessage& message) const {
  return std::all_of(message.request.runs().begin(), message.request.runs().end(),
                     [this](const proto::RowRun& run) {
                       const int64_t end = run.first_row() + NumRows(run);
                       return end <= streams_.at(run.stream()).acked;
                     });
}

void UnackedRows::PopAcked() {
  while (num_sent_ > 0 && IsAcked(*queue_.front())) {
    bytes_ -= queue_.front()->row_bytes;
    num_rows_ -= queue_.front()->num_rows;
    sent_bytes_ -= queue_.front()->row_bytes;
    --num_sent_;
    queue_.pop_front();
  }
}

absl::Status UnackedRows::Resume(const proto::AppendReply& reply,
                                 const std::function<uint64_t()>& make_id,
                                 std::vector<StreamRename>* renames) {
  num_sent_ = 0;
  sent_bytes_ = 0;
  absl::flat_hash_map<uint64_t, int64_t> held;
  for (const proto::StreamAck& ack : reply.acks()) {
    if (absl::Status status = CheckAck(ack); !status.ok()) return status;
    held[ack.stream()] = ack.held_rows();
  }
  for (const uint64_t id : LiveStreams()) {
    Stream& stream = streams_[id];
    const int64_t held_rows = held[id];
    RecordAck(stream, held_rows);
    if (held_rows < stream.acked) renames->push_back({id, make_id(), stream.acked});
  }
  for (const StreamRename& rename : *renames) Rename(rename);
  Trim();
  return absl::OkStatus();
}

void UnackedRows::Rename(const StreamRename& rename) {
  Stream renamed = streams_[rename.from];
  renamed.appended -= rename.lost_rows;
  renamed.sent = 0;
  renamed.acked = 0;
  Stream& old = streams_[rename.from];
  old.open = false;
  old.appended = rename.lost_rows;
  streams_[rename.to] = renamed;

  for (const auto& message : queue_) {
    TrimMessage(*message);
    for (proto::RowRun& run : *message->request.mutable_runs()) {
      if (run.stream() != rename.from) continue;
      run.set_stream(rename.to);
      run.set_first_row(run.first_row() - rename.lost_rows);
    }
  }
}

void UnackedRows::Trim() {
  for (const auto& message : queue_) TrimMessage(*message);
  std::erase_if(queue_, [](const auto& message) { return message->request.runs().empty(); });
}

// Takes off what is acked.
void UnackedRows::TrimMessage(RowMessage& message) {
  auto& runs = *message.request.mutable_runs();
  for (int i = 0; i < runs.size();) {
    proto::RowRun& run = runs[i];
    const int64_t acked = streams_[run.stream()].acked - static_cast<int64_t>(run.first_row());
    const int64_t cut = std::clamp<int64_t>(acked, 0, NumRows(run));
    const size_t cut_bytes = sizes_.FirstRows(run.rows(), cut).value_or(0);
    message.row_bytes -= static_cast<int64_t>(cut_bytes);
    bytes_ -= static_cast<int64_t>(cut_bytes);
    message.num_rows -= cut;
    num_rows_ -= cut;
    if (cut_bytes == run.rows().size()) {
      runs.DeleteSubrange(i, 1);
      continue;
    }
    run.mutable_rows()->erase(0, cut_bytes);
    run.set_first_row(run.first_row() + cut);
    ++i;
  }
}

int64_t UnackedRows::DropNewest() {
  if (queue_.empty()) return 0;
  int64_t dropped = 0;
  const RowMessage& message = *queue_.back();
  for (const proto::RowRun& run : message.request.runs()) {
    Stream& stream = streams_[run.stream()];
    const int64_t kept = std::max<int64_t>(stream.acked, run.first_row());
    dropped += stream.appended - kept;
    stream.appended = kept;
  }
  if (num_sent_ == queue_.size()) {
    --num_sent_;
    sent_bytes_ -= message.row_bytes;
  }
  bytes_ -= message.row_bytes;
  num_rows_ -= message.num_rows;
  queue_.pop_back();
  return dropped;
}

std::vector<uint64_t> UnackedRows::LiveStreams() const {
  std::vector<uint64_t> ids;
  for (const auto& [id, stream] : streams_) {
    if (stream.open || stream.acked < stream.appended) ids.push_back(id);
  }
  return ids;
}

}  // namespace troupe
