#include "tests/chaos/shard_kill/writer.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

constexpr int kStreamsPerWriter = 3;
constexpr uint64_t kMessageRows = 65536 / KnownRows::kStrideBytes;
// Rows that may be without an ack.
constexpr uint64_t kWindowRows = (uint64_t{1} << 20) / KnownRows::kStrideBytes;
// Rows that are sent although the shard holds them.
constexpr uint64_t kMostSentAgain = 300;
constexpr uint64_t kShortStreamRows = 200;
constexpr uint64_t kLongStreamRows = 100'000;

}  // namespace

proto::AppendRequest OpenRequest(const std::vector<uint64_t>& streams) {
  proto::AppendRequest request;
  proto::AppendOpen* open = request.mutable_open();
  open->set_run(kRunName);
  open->set_table(kTableName);
  *open->mutable_layout() = KnownRows::LayoutProto();
  for (const uint64_t stream : streams) open->add_streams(stream);
  return request;
}

Writer::Writer(int index, uint64_t seed, const WriterContext& context)
    : index_(index), context_(context), random_(seed) {
  absl::MutexLock lock(&mu_);
  for (int i = 0; i < kStreamsPerWriter; ++i) streams_.push_back(NewStream());
}

uint64_t Writer::Draw(uint64_t least, uint64_t most) {
  return std::uniform_int_distribution<uint64_t>(least, most)(random_);
}

Writer::Stream Writer::NewStream() {
  const bool is_short = Draw(1, 4) == 1;
  return {.id = random_(), .end_row = Draw(1, is_short ? kShortStreamRows : kLongStreamRows)};
}

std::map<uint64_t, StreamFacts> Writer::Facts() const {
  absl::MutexLock lock(&mu_);
  std::map<uint64_t, StreamFacts> facts = ended_;
  for (const Stream& stream : streams_) {
    facts[stream.id] = {.acked_rows = stream.acked, .sent_rows = stream.sent, .active = true};
  }
  return facts;
}

void Writer::Begin(const std::map<uint64_t, uint64_t>& held) {
  absl::MutexLock lock(&mu_);
  broken_ = false;
  for (const auto& [stream, rows] : held) HandleAck(stream, rows);
  for (Stream& stream : streams_) stream.next = stream.acked;
  context_.pace->Set(index_, SentRows());
}

uint64_t Writer::SentRows() const {
  uint64_t rows = ended_rows_;
  for (const Stream& stream : streams_) rows += stream.next;
  return rows;
}

grpc::Status Writer::Run(proto::Replay::Stub* stub, const std::function<void(uint64_t)>& acked) {
  grpc::ClientContext call_context;
  auto call = stub->Append(&call_context);
  std::thread reader([this, &call, &acked] {
    proto::AppendReply reply;
    while (call->Read(&reply)) {
      uint64_t rows = 0;
      {
        absl::MutexLock lock(&mu_);
        for (const proto::StreamAck& ack : reply.acks()) {
          rows += HandleAck(ack.stream(), ack.held_rows());
        }
      }
      acked(rows);
    }
    context_.pace->End();
    absl::MutexLock lock(&mu_);
    broken_ = true;
  });
  proto::AppendRequest request = OpenRequest({});
  while (call->Write(request) && NextMessage(&request)) {
  }
  reader.join();
  return call->Finish();
}

bool Writer::MayGoOn() const {
  if (broken_) return true;
  uint64_t unacked = 0;
  uint64_t to_send = 0;
  for (const Stream& stream : streams_) {
    unacked += stream.next - stream.acked;
    to_send += stream.end_row - stream.next;
  }
  return unacked < kWindowRows && to_send > 0;
}

bool Writer::NextMessage(proto::AppendRequest* request) {
  std::vector<Span> spans;
  uint64_t sent = 0;
  {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(this, &Writer::MayGoOn));
    if (broken_) return false;
    spans = NextSpans();
    sent = SentRows();
  }
  request->Clear();
  for (const Span& span : spans) {
    proto::RowRun* run = request->add_runs();
    run->set_stream(span.stream);
    run->set_first_row(span.first_row);
    run->set_rows(context_.rows->Pack(span.stream, span.first_row, span.num_rows));
  }
  context_.pace->Await(index_, sent);
  return true;
}

std::vector<Writer::Span> Writer::NextSpans() {
  std::vector<Span> spans;
  uint64_t left = kMessageRows;
  // Streams take turns, so that none falls behind.
  for (size_t i = 0; i < streams_.size() && left > 0; ++i) {
    Stream& stream = streams_[next_stream_++ % streams_.size()];
    const uint64_t rows = std::min(Draw(1, left), stream.end_row - stream.next);
    if (rows == 0) continue;
    const uint64_t again = Draw(1, 8) == 1 ? Draw(0, std::min(stream.next, kMostSentAgain)) : 0;
    spans.push_back({stream.id, stream.next - again, rows + again});
    stream.next += rows;
    stream.sent = std::max(stream.sent, stream.next);
    left -= rows;
  }
  return spans;
}

uint64_t Writer::HandleAck(uint64_t id, uint64_t held_rows) {
  const auto stream = std::find_if(streams_.begin(), streams_.end(),
                                   [id](const Stream& stream) { return stream.id == id; });
  if (stream == streams_.end()) return 0;  // ended, acked in full before
  if (held_rows > stream->sent) {
    context_.findings->Doubled(held_rows - stream->sent,
                               absl::StrCat(StreamName(id), ": the shard holds ", held_rows,
                                            " rows, only ", stream->sent, " were sent"));
    return 0;
  }
  if (held_rows < stream->acked) {
    context_.findings->Lost(stream->acked - held_rows,
                            absl::StrCat(StreamName(id), ": the shard holds ", held_rows,
                                         " rows and had acked ", stream->acked));
    return 0;
  }
  const uint64_t new_rows = held_rows - stream->acked;
  if (new_rows == 0) return 0;
  stream->acked_crc = context_.rows->ExtendCrc(stream->acked_crc, id, stream->acked, held_rows);
  stream->acked = held_rows;
  context_.ledger->Record(id, held_rows, stream->acked_crc, new_rows);
  if (held_rows == stream->end_row) {
    ended_[id] = {.acked_rows = held_rows, .sent_rows = held_rows};
    ended_rows_ += held_rows;
    *stream = NewStream();
  }
  return new_rows;
}

}  // namespace troupe
