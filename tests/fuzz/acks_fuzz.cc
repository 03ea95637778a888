// What a shard may answer to a writer, any bytes as AppendReply: rows go out without a gap behind
// those that the shard says it holds, and no ack counts rows that there were not.
// The input is a row of steps, each a byte that says what and, for replies, one of their length.
#include <cstdint>
#include <map>
#include <memory>

#include "actor/unacked_rows.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

constexpr int64_t kStride = 8;
constexpr size_t kEnvs = 3;
constexpr int64_t kWindowBytes = 10 * kStride;
constexpr size_t kMaxSteps = 64;

// The use that RowWriter makes of UnackedRows for one shard.
class Writer final {
 public:
  Writer() { BeginStreams(); }

  void Push(uint64_t which);
  void Send();
  void Ack(const proto::AppendReply& reply);
  void Resume(const proto::AppendReply& reply);
  void Break() { open_ = false; }
  void Drop();
  void Check();

 private:
  struct Env {
    uint64_t stream = 0;
    uint64_t next_row = 0;
  };

  void BeginStreams() {
    for (size_t i = 0; i < kEnvs; ++i) {
      envs_[i] = {.stream = next_id_++};
      rows_.BeginStream(envs_[i].stream, static_cast<int64_t>(i));
    }
  }

  UnackedRows rows_{RowSizes(uint64_t{kStride})};
  Env envs_[kEnvs];
  uint64_t next_id_ = 1;
  bool open_ = false;
  // By stream: rows that the shard said it holds, and those that went out since.
  std::map<uint64_t, uint64_t> at_shard_;
  int64_t rows_acked_ = 0;
};

// Rows of two streams in one message.
void Writer::Push(uint64_t which) {
  auto message = std::make_unique<RowMessage>();
  for (const uint64_t i : {which % kEnvs, (which + 1) % kEnvs}) {
    const uint64_t count = 1 + which / kEnvs % 4;
    proto::RowRun* run = message->request.add_runs();
    run->set_stream(envs_[i].stream);
    run->set_first_row(envs_[i].next_row);
    run->set_rows(std::string(count * kStride, '\0'));
    envs_[i].next_row += count;
    message->row_bytes += static_cast<int64_t>(count) * kStride;
  }
  rows_.Push(std::move(message));
}

void Writer::Send() {
  if (!open_) return;
  const auto message = rows_.NextToSend(kWindowBytes);
  if (message == nullptr) return;
  for (const proto::RowRun& run : message->request.runs()) {
    uint64_t& held = at_shard_[run.stream()];
    Require(run.first_row() <= held, "row ", run.first_row(), " of stream ", run.stream(),
            " is sent to a shard that holds ", held);
    held = std::max<uint64_t>(held, run.first_row() + run.rows().size() / kStride);
  }
}

void Writer::Ack(const proto::AppendReply& reply) {
  if (!open_) return;
  const absl::Status status = rows_.Ack(reply);
  Require(status.ok() || absl::IsInternal(status), status);
  open_ = status.ok();
}

void Writer::Resume(const proto::AppendReply& reply) {
  if (open_) return;
  std::vector<StreamRename> renames;
  const absl::Status status = rows_.Resume(
      reply, [this] { return next_id_++; }, &renames);
  Require(status.ok() || absl::IsInternal(status), status);
  for (const StreamRename& rename : renames) {
    for (Env& env : envs_) {
      if (env.stream != rename.from) continue;
      const auto lost = static_cast<uint64_t>(rename.lost_rows);
      Require(lost <= env.next_row, "more rows are lost than there were");
      env = {rename.to, env.next_row - lost};
    }
  }
  open_ = status.ok();
  at_shard_.clear();
  for (const proto::StreamAck& ack : reply.acks()) at_shard_[ack.stream()] = ack.held_rows();
}

// The writer has moved to another shard, and has no room for all that this one did not ack.
void Writer::Drop() {
  if (open_) return;
  rows_.EndStreams();
  rows_.DropNewest();
  BeginStreams();
}

void Writer::Check() {
  Require(rows_.rows_acked() >= rows_acked_, "acked rows are not acked any more");
  rows_acked_ = rows_.rows_acked();
  Require(rows_.bytes() >= 0 && (rows_.bytes() == 0) == rows_.empty(), "it holds ", rows_.bytes(),
          " bytes");
  for (const auto& [id, stream] : rows_.streams()) {
    Require(0 <= stream.acked && stream.acked <= stream.appended, "stream ", id, ": ", stream.acked,
            " rows of ", stream.appended, " are acked");
  }
  for (const Env& env : envs_) {
    const UnackedRows::Stream& stream = rows_.streams().at(env.stream);
    Require(static_cast<uint64_t>(stream.appended) == env.next_row, "stream ", env.stream,
            " goes on at ", stream.appended, ", not at ", env.next_row);
  }
}

void TestOne(absl::string_view input) {
  Writer writer;
  for (size_t step = 0; step < kMaxSteps && !input.empty(); ++step) {
    const int what = static_cast<uint8_t>(input[0]);
    input.remove_prefix(1);
    if (what < 64) {
      writer.Push(what);
    } else if (what < 96) {
      writer.Send();
    } else if (what < 104) {
      writer.Drop();
    } else if (what < 112) {
      writer.Break();
    } else if (!input.empty()) {
      const auto size = std::min<size_t>(static_cast<uint8_t>(input[0]), input.size() - 1);
      proto::AppendReply reply;
      const bool ok = reply.ParseFromArray(input.data() + 1, static_cast<int>(size));
      input.remove_prefix(1 + size);
      if (!ok) continue;
      what % 2 == 0 ? writer.Ack(reply) : writer.Resume(reply);
    }
    writer.Check();
  }
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
