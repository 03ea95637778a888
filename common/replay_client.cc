#include "common/replay_client.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/replay_client_impl.h"
#include "proto/replay.grpc.pb.h"

namespace troupe {
namespace {

constexpr absl::Duration kDescribeTimeout = absl::Seconds(2);
constexpr absl::Duration kRequestUnrollsTimeout = absl::Milliseconds(200);
constexpr absl::Duration kDescribeInterval = absl::Milliseconds(100);
constexpr int64_t kMaxWindowRows = 65536;
// A shard sends no more than 1 GiB at once.
constexpr int64_t kMaxBatchBytes = int64_t{4} << 30;

absl::Status CheckOptions(const ReplayClientOptions& options) {
  if (options.batch_size < 1 || options.batch_size > (1 << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat("batch_size is ", options.batch_size, ", must be 1 to 1048576"));
  }
  if (options.prefetch_batches < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("prefetch_batches is ", options.prefetch_batches, ", must be at least 1"));
  }
  return absl::OkStatus();
}

}  // namespace

ReplayClient::Impl::Impl(ReplayClientOptions options)
    : options_(std::move(options)), limiter_(options_.rate_limit), random_(options_.seed) {
  listener_ = options_.directory->AddListener([this] { OnShardsChanged(); });
  {
    absl::MutexLock lock(&mu_);
    AddLanes();
  }
  timers_ = std::thread([this] { RunTimers(); });
}

ReplayClient::Impl::~Impl() {
  options_.directory->RemoveListener(listener_);
  Stop();
  timers_.join();
  const auto idle = [this] {
    mu_.AssertReaderHeld();
    return std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) {
      return lane.windows.call == nullptr && lane.polls.call == nullptr;
    });
  };
  mu_.LockWhen(absl::Condition(&idle));
  mu_.Unlock();
}

void ReplayClient::Impl::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  timer_.Signal();
  for (Lane& lane : lanes_) EndSession(lane);
}

// Shards.

void ReplayClient::Impl::AddLanes() {
  while (lanes_.size() < options_.directory->size()) {
    Lane& lane = lanes_.emplace_back(
        ShardLink(options_.directory, lanes_.size()),
        Backoff(options_.reconnect_min, options_.reconnect_max, std::random_device{}()));
    // One that came later holds up nothing.
    lane.tried = pool_ != nullptr;
  }
}

void ReplayClient::Impl::OnShardsChanged() {
  absl::MutexLock lock(&mu_);
  AddLanes();
  for (Lane& lane : lanes_) {
    if (lane.link.IsStale()) EndSession(lane);
    if (!lane.up || lane.ending) lane.next_attempt = absl::InfinitePast();
  }
  timer_.Signal();
}

// For calls beside the sessions.
std::vector<ShardLink> ReplayClient::Impl::Links() {
  absl::MutexLock lock(&mu_);
  std::vector<ShardLink> links;
  for (Lane& lane : lanes_) {
    if (lane.windows.call == nullptr && lane.polls.call == nullptr) lane.link.Renew();
    links.push_back(lane.link);
  }
  return links;
}

// The table.

// Notes what `shard` says of the table in `table`, if it knows the layout.
absl::Status ReplayClient::Impl::CheckTable(const proto::TableDescription& found,
                                            const std::string& shard,
                                            proto::TableDescription* table) const {
  if (!found.has_layout()) return absl::OkStatus();
  const absl::StatusOr<Layout> layout = Layout::FromProto(found.layout());
  if (!layout.ok()) return layout.status();
  if (found.window_length() < 1 || found.window_length() > kMaxWindowRows) {
    return absl::InternalError(
        absl::StrCat("shard ", shard, " has windows of ", found.window_length(), " rows"));
  }
  if (layout->stride_bytes() > kMaxBatchBytes / (options_.batch_size * found.window_length())) {
    return absl::FailedPreconditionError(
        absl::StrCat("shard ", shard, " has windows of ", found.window_length(), " rows of ",
                     layout->stride_bytes(), " bytes: a batch of ", options_.batch_size,
                     " of them is larger than ", kMaxBatchBytes, " bytes"));
  }
  if (table->has_layout()) {
    const absl::StatusOr<Layout> other = Layout::FromProto(table->layout());
    if (!other.ok()) return other.status();
    if (absl::Status status = other->CheckSame(*layout); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("shard ", shard, ": ", status.message()));
    }
    if (found.window_length() != table->window_length()) {
      return absl::FailedPreconditionError(
          absl::StrCat("shard ", shard, " cuts windows of ", found.window_length(),
                       " rows, another one of ", table->window_length()));
    }
  }
  *table = found;
  return absl::OkStatus();
}

// Asks every shard once.
absl::Status ReplayClient::Impl::Describe(absl::Time deadline, proto::TableDescription* table,
                                          TableInfo* info, std::string* answers) {
  proto::DescribeRequest request;
  request.set_run(options_.run);
  for (const ShardLink& link : Links()) {
    const std::string shard = link.Name();
    grpc::ClientContext context;
    link.Address(&context);
    context.set_deadline(absl::ToChronoTime(std::min(deadline, absl::Now() + kDescribeTimeout)));
    proto::DescribeReply reply;
    const auto stub = proto::Replay::NewStub(link.channel());
    const absl::Status status =
        FromGrpc(stub->Describe(&context, request, &reply), "describing", shard);
    link.NoteEnd(status);
    if (IsPermanent(status)) return status;
    if (!status.ok()) {
      absl::StrAppend(answers, "; ", status.message());
      continue;
    }
    ++info->shards_reached;
    info->max_epoch = std::max<uint64_t>(info->max_epoch, reply.max_epoch());
    const auto found = std::find_if(
        reply.tables().begin(), reply.tables().end(),
        [this](const proto::TableDescription& each) { return each.name() == options_.table; });
    if (found == reply.tables().end()) {
      return absl::NotFoundError(
          absl::StrCat("shard ", shard, " has no table '", options_.table, "'"));
    }
    if (absl::Status bad = CheckTable(*found, shard, table); !bad.ok()) return bad;
    if (!found->has_layout()) {
      absl::StrAppend(answers, "; ", shard, " waits for a first actor");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TableInfo> ReplayClient::Impl::WaitForTable(absl::Time deadline) {
  while (true) {
    TableInfo info;
    proto::TableDescription table;
    std::string answers;
    const absl::Status status = Describe(deadline, &table, &info, &answers);
    if (!status.ok()) return status;
    absl::MutexLock lock(&mu_);
    if (table.has_layout()) {
      info.layout = *Layout::FromProto(table.layout());
      info.window_length = table.window_length();
      info.window_stride = table.window_stride();
      if (pool_ == nullptr) {
        window_rows_ = info.window_length;
        window_bytes_ = info.window_length * info.layout.stride_bytes();
        if (info.layout.has_compressed_columns()) codec_ = std::make_unique<RowCodec>(info.layout);
        pool_ = std::make_shared<BatchPool>(options_.batch_size, info.window_length,
                                            info.layout.stride_bytes());
      }
      timer_.Signal();
      return info;
    }
    const absl::Time retry = std::min(deadline, absl::Now() + kDescribeInterval);
    if (mu_.AwaitWithDeadline(absl::Condition(&stopped_), retry)) {
      return absl::CancelledError("replay client is stopped");
    }
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("no shard knows the layout of table '", options_.table, "' yet", answers));
    }
  }
}

// Batches.

ReplayCounts ReplayClient::Impl::Sum() const {
  ReplayCounts sum;
  for (const Lane& lane : lanes_) {
    sum.env_steps += lane.counts.env_steps();
    sum.inserted += lane.counts.inserted();
    sum.sampled += Sampled(lane);
    sum.preloaded += lane.counts.preloaded();
  }
  return sum;
}

LimiterCounts ReplayClient::Impl::CountsWithAsked() const {
  const ReplayCounts sum = Sum();
  LimiterCounts counts;
  counts.inserted = sum.inserted;
  counts.preloaded = sum.preloaded;
  counts.sampled = sum.sampled + NumAsked();
  return counts;
}

int64_t ReplayClient::Impl::NumAsked() const {
  int64_t asked = 0;
  for (const Lane& lane : lanes_) asked += lane.num_asked;
  for (const Piece& orphan : orphans_) asked += orphan.count;
  return asked;
}

// Before that, batches would be drawn from the first shards to answer alone.
bool ReplayClient::Impl::AllTried() const {
  return std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.tried; });
}

// Asks for all that may be asked for now.
void ReplayClient::Impl::Advance() {
  if (awaits_draws_) NoteStarvation(BatchesThatFit(1) == 0);
  if (!prefetching_ || !AllTried() || stopped_ || !permanent_.ok()) return;
  PlaceOrphans();
  bool starved = !orphans_.empty();
  while (!starved && std::ssize(batches_) < options_.prefetch_batches) {
    starved = TotalMass() <= 0 || !limiter_.SampleFits(options_.batch_size, CountsWithAsked());
    if (starved) break;
    auto batch = std::make_shared<Batch>();
    batch->windows = pool_->Take();
    batch->missing = options_.batch_size;
    batches_.push_back(batch);
    orphans_.push_back({.batch = batch, .count = options_.batch_size});
    PlaceOrphans();
  }
  NoteStarvation(starved);
  for (size_t i = 0; i < lanes_.size(); ++i) SendNext(i);
}

void ReplayClient::Impl::NoteStarvation(bool starved) {
  if (starved == starved_) return;
  const absl::Time now = absl::Now();
  if (starved_) stats_.starved += now - starved_since_;
  starved_ = starved;
  starved_since_ = now;
  if (starved) timer_.Signal();  // to poll
}

// `received` windows of `piece` are in their batch; the rest is asked for again.
void ReplayClient::Impl::Finish(const Piece& piece, int64_t received) {
  if (piece.batch == nullptr) return;
  piece.batch->missing -= received;
  if (received == piece.count) return;
  stats_.redistributed += piece.count - received;
  orphans_.push_back({piece.batch, piece.first + received, piece.count - received, 0});
}

absl::StatusOr<WindowBatch> ReplayClient::Impl::NextBatch(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  if (pool_ == nullptr) {
    return absl::FailedPreconditionError("NextBatch before WaitForTable returned OK");
  }
  prefetching_ = true;
  Advance();
  // Not always the oldest: its windows may be asked of a shard that has none now.
  const auto complete = [this] {
    mu_.AssertReaderHeld();
    return std::find_if(batches_.begin(), batches_.end(),
                        [](const auto& batch) { return batch->missing == 0; });
  };
  const auto ready = [&] {
    mu_.AssertReaderHeld();
    return complete() != batches_.end() || stopped_ || !permanent_.ok();
  };
  mu_.AwaitWithDeadline(absl::Condition(&ready), deadline);
  if (!permanent_.ok()) return permanent_;
  if (stopped_) return absl::CancelledError("replay client is stopped");
  const auto batch = complete();
  if (batch == batches_.end()) return absl::DeadlineExceededError(WaitsFor());
  WindowBatch windows = std::move((*batch)->windows);
  batches_.erase(batch);
  ++stats_.batches;
  Advance();
  return windows;
}

std::string ReplayClient::Impl::WaitsFor() const {
  std::string text = absl::StrCat("no batch of ", options_.batch_size, " windows of table '",
                                  options_.table, "' yet");
  if (starved_) {
    const absl::Duration starved = absl::Floor(absl::Now() - starved_since_, absl::Milliseconds(1));
    absl::StrAppend(&text, " for ", absl::FormatDuration(starved));
  }
  const std::string limit = limiter_.WhySampleWaits(options_.batch_size, CountsWithAsked());
  if (!batches_.empty() && orphans_.empty()) {
    absl::StrAppend(&text, ": ", batches_.front()->missing, " windows were asked for");
  } else if (!limit.empty()) {
    absl::StrAppend(&text, ": ", limit);
  } else if (TotalMass() <= 0) {
    absl::StrAppend(&text, ": no shard that is up has any window of the ", Sum().inserted,
                    " inserted; more inserts free it");
  }
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const Lane& lane = lanes_[i];
    absl::StrAppend(&text, "; ", options_.directory->Name(i), lane.up ? " up" : " gone",
                    ", asked for ", lane.num_asked);
    if (!lane.up && !lane.last_break.ok()) absl::StrAppend(&text, ", ", lane.last_break.message());
  }
  return text;
}

int64_t ReplayClient::Impl::RequestUnrolls(uint64_t version) {
  proto::RequestUnrollsRequest request;
  request.set_run(options_.run);
  request.set_table(options_.table);
  request.set_policy_version(version);
  int64_t writers = 0;
  for (const ShardLink& link : Links()) {
    grpc::ClientContext context;
    link.Address(&context);
    context.set_deadline(absl::ToChronoTime(absl::Now() + kRequestUnrollsTimeout));
    proto::RequestUnrollsReply reply;
    const auto stub = proto::Replay::NewStub(link.channel());
    if (stub->RequestUnrolls(&context, request, &reply).ok()) writers += reply.writers();
  }
  return writers;
}

ReplayCounts ReplayClient::Impl::counts() const {
  absl::MutexLock lock(&mu_);
  return Sum();
}

ReplayClientStats ReplayClient::Impl::stats() const {
  absl::MutexLock lock(&mu_);
  ReplayClientStats stats = stats_;
  if (pool_ != nullptr) stats.buffers = pool_->allocated();
  for (const Lane& lane : lanes_) stats.shards_up += lane.up;
  if (starved_) stats.starved += absl::Now() - starved_since_;
  stats.mass = TotalMass();
  return stats;
}

ReplayClient::ReplayClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ReplayClient::~ReplayClient() = default;

absl::StatusOr<std::unique_ptr<ReplayClient>> ReplayClient::Create(ReplayClientOptions options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  auto directory = ShardDirectory::OrFixed(options.directory, options.shards, options.credentials);
  if (!directory.ok()) return directory.status();
  options.directory = *std::move(directory);
  return std::unique_ptr<ReplayClient>(
      new ReplayClient(std::make_unique<Impl>(std::move(options))));
}

absl::StatusOr<TableInfo> ReplayClient::WaitForTable(absl::Time deadline) {
  return impl_->WaitForTable(deadline);
}
absl::StatusOr<WindowBatch> ReplayClient::NextBatch(absl::Time deadline) {
  return impl_->NextBatch(deadline);
}
absl::StatusOr<int64_t> ReplayClient::AdmitDraws(int64_t most, absl::Time deadline) {
  return impl_->AdmitDraws(most, deadline);
}
absl::Status ReplayClient::UpdatePriorities(absl::Span<const int32_t> shards,
                                            absl::Span<const uint64_t> row_ids,
                                            absl::Span<const float> priorities) {
  return impl_->UpdatePriorities(shards, row_ids, priorities);
}
int64_t ReplayClient::RequestUnrolls(uint64_t version) { return impl_->RequestUnrolls(version); }
ReplayCounts ReplayClient::counts() const { return impl_->counts(); }
ReplayClientStats ReplayClient::stats() const { return impl_->stats(); }
void ReplayClient::Stop() { impl_->Stop(); }

}  // namespace troupe
