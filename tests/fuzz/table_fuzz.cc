// A table and any messages that peers may send it: the first byte of the input picks the table,
// then come a byte that says what, two bytes of a length and the message.  What is refused changes
// nothing; what is answered is what proto/replay.proto says; a follower gets every row once, and
// a restart changes none of it.
#include <cmath>
#include <memory>
#include <optional>

#include "common/row_sizes.h"
#include "replay_server/table.h"
#include "replay_server/wire.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/requests.h"

namespace troupe {
namespace {

constexpr size_t kMaxMessages = 16;
// As a shard refuses what does not fit into its byte budget.
constexpr uint64_t kMaxReplyBytes = 1 << 14;

TableOptions OptionsOf(const SmallTable& small) {
  static const std::string path = OwnPath("table.rows");
  TableOptions options = small.Options();
  options.path = path;
  options.rate_limit = {.min_size = 3, .samples_per_insert = 2, .slack = 200};
  return options;
}

std::shared_ptr<Waiter> NewWaiter() {
  const auto waiter = std::make_shared<Waiter>();
  waiter->wake = [] {};
  return waiter;
}

// Rows that a follower got, and what it was told that it missed.
struct Followed {
  uint64_t rows = 0;
  uint64_t missed = 0;
};

class Target final {
 public:
  explicit Target(const SmallTable& small)
      : options_(OptionsOf(small)), row_sizes_(LayoutOf(small)) {
    RemoveMemoryFile(options_.path);
    Start();
    Require(table_->Open(kRun, LayoutOf(small)).ok(), "the table does not open");
  }

  void Handle(int what, absl::string_view bytes);
  // At the end of each input.
  void Check();

 private:
  void Start();
  void Append(absl::string_view bytes);
  void Sample(absl::string_view bytes);
  void UpdatePriorities(const proto::PriorityUpdates& updates);
  void Follow(absl::string_view bytes);
  Followed Drain(const FollowerPtr& follower);
  uint64_t CountRows(absl::string_view rows) const;

  const TableOptions options_;
  const RowSizes row_sizes_;
  std::unique_ptr<Table> table_;
};

void Target::Start() {
  static Scheduler* const scheduler = new Scheduler;
  table_ = nullptr;
  absl::StatusOr<std::unique_ptr<Table>> table = Table::Make(options_, scheduler);
  Require(table.ok(), table.status());
  table_ = *std::move(table);
}

uint64_t Target::CountRows(absl::string_view rows) const {
  const std::optional<uint64_t> count = row_sizes_.Count(rows);
  Require(count.has_value(), "not whole rows");
  return *count;
}

void Target::Append(absl::string_view bytes) {
  grpc::ByteBuffer buffer = InPieces(bytes);
  AppendMessage message;
  if (!message.Parse(&buffer).ok()) return;
  const proto::TableDescription before = table_->Describe();
  const bool preload = message.has_open() && message.open().preload();
  const auto acks = table_->Append(message.runs(), /*newest_version=*/1, preload);
  const proto::TableDescription after = table_->Describe();
  if (!acks.ok()) {
    Require(absl::IsInvalidArgument(acks.status()) || absl::IsFailedPrecondition(acks.status()),
            acks.status());
    Require(before.SerializeAsString() == after.SerializeAsString(), "a refusal changed the table");
    return;
  }
  const uint64_t stored = after.rows_appended() - before.rows_appended();
  const uint64_t known = after.rows_duplicate() - before.rows_duplicate();
  uint64_t sent = 0;
  for (const RowRunView& run : message.runs()) sent += CountRows(run.rows);
  Require(stored + known == sent, "rows are neither new nor known");
  Require(after.rows() <= 4 * kRowsPerBlock, "more rows than there is room for");
}

void Target::Sample(absl::string_view bytes) {
  grpc::ByteBuffer buffer = InPieces(bytes);
  proto::SampleRequest request;
  if (!DecodeMessage(&buffer, &request).ok()) return;
  if (request.has_priorities()) UpdatePriorities(request.priorities());
  table_->NoteOthers(request.others_inserted(), request.others_preloaded(),
                     request.others_sampled());
  const uint64_t window_bytes = table_->window_bytes();
  if (request.num_windows() > kMaxReplyBytes / window_bytes) return;
  const auto waiter = NewWaiter();
  SampleBatch batch;
  if (!table_->SampleOrWait({request.num_windows(), request.inserted_above()}, waiter, &batch)) {
    const bool is_poll = request.num_windows() == 0;
    Require(is_poll || !table_->Describe().samplers_wait_for().empty(), "it waits for nothing");
    return table_->Forget(waiter);
  }
  grpc::ByteBuffer encoded = EncodeSampleReply(&batch);
  proto::SampleReply reply;
  Require(DecodeMessage(&encoded, &reply).ok(), "protobuf cannot read our reply");
  const auto wanted = static_cast<int>(request.num_windows());
  Require(reply.row_ids_size() == wanted && reply.probabilities_size() == wanted,
          "another number of windows");
  const bool whole = row_sizes_.all_alike()
                         ? reply.windows().size() == wanted * window_bytes
                         : CountRows(reply.windows()) == wanted * options_.window.length;
  Require(whole, "windows of another size");
  Require(std::isfinite(reply.mass()) && reply.mass() >= 0, "a mass of ", reply.mass());
  for (const float probability : reply.probabilities()) {
    Require(probability >= 0 && probability <= 1, "a probability of ", probability);
  }
}

void Target::UpdatePriorities(const proto::PriorityUpdates& updates) {
  const absl::StatusOr<PriorityOutcome> outcome = table_->UpdatePriorities(updates);
  if (!outcome.ok()) return Require(absl::IsInvalidArgument(outcome.status()), outcome.status());
  const auto ids = static_cast<uint64_t>(updates.row_ids_size());
  Require(outcome->updated + outcome->unknown == ids, "ids are neither known nor unknown");
}

void Target::Follow(absl::string_view bytes) {
  grpc::ByteBuffer buffer = InPieces(bytes);
  proto::FollowRequest request;
  if (!DecodeMessage(&buffer, &request).ok()) return;
  absl::StatusOr<std::unique_ptr<Follower>> follower = Follower::Make(request);
  if (!follower.ok()) return;
  const FollowerPtr shared = *std::move(follower);
  if (absl::Status status = table_->StartFollowing(shared); !status.ok()) {
    return Require(absl::IsFailedPrecondition(status), status);
  }
  Drain(shared);
}

Followed Target::Drain(const FollowerPtr& follower) {
  Followed followed;
  const auto waiter = NewWaiter();
  FollowBatch batch;
  for (bool more = true; more;) {
    more = table_->FollowOrWait(follower, waiter, &batch);
    const uint64_t rows_bytes = batch.rows_bytes;
    grpc::ByteBuffer encoded = EncodeFollowReply(&batch);
    proto::FollowReply reply;
    Require(DecodeMessage(&encoded, &reply).ok(), "protobuf cannot read our reply");
    uint64_t found_bytes = 0;
    for (const proto::FollowedRows& run : reply.runs()) {
      found_bytes += run.rows().size();
      followed.rows += CountRows(run.rows());
    }
    Require(found_bytes == rows_bytes && more == (found_bytes > 0), "another number of rows");
    followed.missed = reply.rows_missed();
  }
  table_->StopFollowing(follower, waiter);
  return followed;
}

void Target::Handle(int what, absl::string_view bytes) {
  switch (what % 5) {
    case 0:
      return Append(bytes);
    case 1:
      return Sample(bytes);
    case 2: {
      proto::UpdatePrioritiesRequest request;
      const bool ok = request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
      if (ok) UpdatePriorities(request.priorities());
      return;
    }
    case 3:
      return Follow(bytes);
    default:
      return Start();
  }
}

void Target::Check() {
  const proto::TableDescription description = table_->Describe();
  const FollowerPtr follower = Follower::Make({}).value();
  Require(table_->StartFollowing(follower).ok(), "nobody can follow from the start");
  const Followed followed = Drain(follower);
  Require(followed.rows == description.rows(), "a follower gets another number of rows");
  Require(followed.rows + followed.missed == description.rows_appended(),
          "a follower misses another number of rows");
  const uint64_t rows = description.rows();
  Start();
  Require(table_->Describe().rows() == rows, "a restart changes the number of rows");
}

void TestOne(absl::string_view input) {
  if (input.empty()) return;
  Target target(kSmallTables[static_cast<uint8_t>(input[0]) % std::size(kSmallTables)]);
  input.remove_prefix(1);
  for (size_t i = 0; i < kMaxMessages && input.size() >= 3; ++i) {
    const int what = static_cast<uint8_t>(input[0]);
    input.remove_prefix(1);
    target.Handle(what, TakeMessage(&input));
  }
  target.Check();
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
