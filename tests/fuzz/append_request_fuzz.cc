// Bytes of one AppendRequest: our parser takes what protobuf's takes and finds the same in it, and
// a table stores what is accepted, or refuses it, so that a restart finds what was acked.
#include <map>
#include <memory>

#include "replay_server/table.h"
#include "replay_server/wire.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/requests.h"

namespace troupe {
namespace {

constexpr uint64_t kSample = 4;  // windows

void CheckSame(const AppendMessage& ours, const proto::AppendRequest& theirs) {
  Require(ours.has_open() == theirs.has_open(), "another opinion on whether it opens");
  Require(ours.drained() == theirs.drained(), "another opinion on whether it is drained");
  if (theirs.has_open()) {
    Require(ours.open().SerializeAsString() == theirs.open().SerializeAsString(),
            "another AppendOpen");
  }
  Require(ours.runs().size() == static_cast<size_t>(theirs.runs_size()), "another number of runs");
  for (int i = 0; i < theirs.runs_size(); ++i) {
    Require(ours.runs()[i].stream == theirs.runs(i).stream() &&
                ours.runs()[i].first_row == theirs.runs(i).first_row() &&
                ours.runs()[i].rows == theirs.runs(i).rows(),
            "another run");
  }
}

TableOptions Options() {
  static const std::string path = OwnPath("table.rows");
  TableOptions options = SmallTable{"replay", proto::PRIORITIZED}.Options();
  options.path = path;
  return options;
}

std::unique_ptr<Table> MakeTable() {
  static Scheduler* const scheduler = new Scheduler;
  return Table::Make(Options(), scheduler).value();
}

void CheckSample(Table* table) {
  const auto waiter = std::make_shared<Waiter>();
  waiter->wake = [] {};
  SampleBatch batch;
  const bool sampled = table->SampleOrWait({.num_windows = kSample}, waiter, &batch);
  if (!sampled) return table->Forget(waiter);
  const size_t window_bytes = table->window_bytes();
  const std::vector<uint64_t> row_ids = batch.row_ids;
  grpc::ByteBuffer bytes = EncodeSampleReply(&batch);
  proto::SampleReply reply;
  Require(DecodeMessage(&bytes, &reply).ok(), "protobuf cannot read our reply");
  Require(reply.windows().size() == kSample * window_bytes, "another number of windows");
  Require(
      std::equal(row_ids.begin(), row_ids.end(), reply.row_ids().begin(), reply.row_ids().end()),
      "other row ids in the reply");
  for (const float probability : reply.probabilities()) {
    Require(probability > 0 && probability <= 1, "a probability is none");
  }
}

void Store(absl::Span<const RowRunView> runs) {
  static const Layout layout = OneColumnLayout();
  RemoveMemoryFile(Options().path);
  std::unique_ptr<Table> table = MakeTable();
  Require(table->Open(kRun, layout).ok(), "the table does not open");
  const auto acks = table->Append(runs, /*newest_version=*/1, /*preload=*/false);
  if (!acks.ok()) {
    Require(absl::IsInvalidArgument(acks.status()) || absl::IsFailedPrecondition(acks.status()),
            acks.status());
    return;
  }
  std::map<uint64_t, uint64_t> held;
  for (const RowRunView& run : runs) {
    const uint64_t end = run.first_row + run.rows.size() / layout.stride_bytes();
    held[run.stream] = std::max(held[run.stream], end);
  }
  for (const proto::StreamAck& ack : *acks) {
    Require(ack.held_rows() == held[ack.stream()], "another number of rows is acked");
  }
  CheckSample(table.get());
  table.reset();
  table = MakeTable();
  for (const auto& [stream, rows] : held) {
    const uint64_t found = table->Held({stream}).front().held_rows();
    // A stream whose rows the ring gave up is not known any more.
    Require(found == rows || found == 0, "a restart finds another number of rows");
  }
  CheckSample(table.get());
}

void TestOne(absl::string_view input) {
  proto::AppendRequest theirs;
  const bool accepted = theirs.ParseFromArray(input.data(), static_cast<int>(input.size()));
  grpc::ByteBuffer bytes = InPieces(input);
  AppendMessage ours;
  const absl::Status status = ours.Parse(&bytes);
  Require(status.ok() || absl::IsInvalidArgument(status), status);
  Require(status.ok() || !accepted, "protobuf accepts it");
  // Ours is more patient with numbers longer than they need be, and with groups in groups.
  if (accepted) CheckSame(ours, theirs);
  if (status.ok() && !ours.runs().empty()) Store(ours.runs());
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
