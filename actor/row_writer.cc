#include "actor/row_writer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actor/row_writer_impl.h"

namespace troupe {
namespace {

// How often `RowWriterStats::blocked` grows during a wait.
constexpr absl::Duration kBlockedUpdate = absl::Milliseconds(100);

absl::Status CheckOptions(const RowWriterOptions& options) {
  if (options.num_envs < 1 || options.num_envs > 65536) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_envs is ", options.num_envs, ", must be 1 to 65536"));
  }
  if (options.first_shard < 0) {
    return absl::InvalidArgumentError(absl::StrCat("first_shard is ", options.first_shard));
  }
  if (options.message_bytes < 1 || options.max_unacked_bytes < options.message_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_unacked_bytes is ", options.max_unacked_bytes,
                     ", must hold a message of message_bytes ", options.message_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

RowWriter::Impl::Impl(RowWriterOptions options, const Layout& layout)
    : options_(std::move(options)),
      layout_(layout.proto()),
      codec_(layout, options_.compression),
      max_row_bytes_(static_cast<int64_t>(codec_.sizes().most())),
      envs_(options_.num_envs),
      message_(std::make_unique<RowMessage>()) {
  listener_ = options_.directory->AddListener([this] { OnShardsChanged(); });
  {
    absl::MutexLock lock(&mu_);
    AddLanes();
    current_ = home_;
    BeginStreams();
  }
  timers_ = std::thread([this] { RunTimers(); });
}

RowWriter::Impl::~Impl() {
  options_.directory->RemoveListener(listener_);
  Stop();
  timers_.join();
  const auto idle = [this] {
    mu_.AssertReaderHeld();
    return std::all_of(lanes_.begin(), lanes_.end(),
                       [](const Lane& lane) { return lane.call == nullptr; });
  };
  mu_.LockWhen(absl::Condition(&idle));
  mu_.Unlock();
}

absl::Status RowWriter::Impl::WaitConnected(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto ready = [this] {
    mu_.AssertReaderHeld();
    return current().open || stopped_ || !permanent_.ok();
  };
  const bool in_time = mu_.AwaitWithDeadline(absl::Condition(&ready), deadline);
  if (!permanent_.ok()) return permanent_;
  if (stopped_) return absl::CancelledError("row writer is stopped");
  if (in_time) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat("no shard has accepted rows yet; ", options_.directory->Name(current_), ": ",
                   current().last_break.ok() ? "no answer" : current().last_break.message()));
}

absl::StatusOr<uint64_t> RowWriter::Impl::Append(int64_t env,
                                                 absl::FunctionRef<void(absl::Span<char>)> pack) {
  absl::MutexLock lock(&mu_);
  if (env < 0 || env >= options_.num_envs) {
    return absl::InvalidArgumentError(absl::StrCat("environment ", env, " of ", options_.num_envs));
  }
  if (absl::Status status = MakeRoom(); !status.ok()) return status;
  AddRow(env, pack);
  const uint64_t number = envs_[env].next_row - 1;
  ++stats_.rows_appended;
  if (message_->row_bytes >= options_.message_bytes ||
      message_->num_rows >= options_.max_unacked_rows / 2) {
    Seal();
  }
  return number;
}

int64_t RowWriter::Impl::UnackedBytes() const {
  int64_t bytes = message_->row_bytes;
  for (const Lane& lane : lanes_) bytes += lane.rows.bytes();
  return bytes;
}

int64_t RowWriter::Impl::UnackedRowCount() const {
  int64_t rows = message_->num_rows;
  for (const Lane& lane : lanes_) rows += lane.rows.num_rows();
  return rows;
}

bool RowWriter::Impl::HasRoom() const {
  const int64_t bytes = UnackedBytes();
  return bytes == 0 || (bytes + max_row_bytes_ <= options_.max_unacked_bytes &&
                        UnackedRowCount() < options_.max_unacked_rows);
}

// A shard that is away, with rows that nobody but it can take.
RowWriter::Impl::Lane* RowWriter::Impl::LaneToDropFrom() {
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (i != current_ && !lanes_[i].open && !lanes_[i].rows.empty()) return &lanes_[i];
  }
  return nullptr;
}

absl::Status RowWriter::Impl::MakeRoom() {
  while (permanent_.ok() && !stopped_ && (current().held_back || !HasRoom())) {
    if (Lane* lane = LaneToDropFrom(); lane != nullptr && !current().held_back) {
      stats_.rows_dropped += lane->rows.DropNewest();
      continue;
    }
    const auto ready = [this] {
      mu_.AssertReaderHeld();
      return stopped_ || !permanent_.ok() ||
             (!current().held_back && (HasRoom() || LaneToDropFrom() != nullptr));
    };
    const absl::Time start = absl::Now();
    mu_.AwaitWithTimeout(absl::Condition(&ready), kBlockedUpdate);
    stats_.blocked += absl::Now() - start;
  }
  return stopped_ ? absl::CancelledError("row writer is stopped") : permanent_;
}

std::string* RowWriter::Impl::RowsOf(int64_t env) {
  EnvState& state = envs_[env];
  proto::AppendRequest& request = message_->request;
  if (message_->row_bytes == 0) {
    seal_at_ = absl::Now() + options_.max_delay;
    timer_.Signal();
  }
  if (state.run < 0) {
    state.run = request.runs_size();
    proto::RowRun* run = request.add_runs();
    run->set_stream(state.stream);
    run->set_first_row(state.next_row);
    run->mutable_rows()->reserve(options_.message_bytes / options_.num_envs + max_row_bytes_);
  }
  ++state.next_row;
  return request.mutable_runs(state.run)->mutable_rows();
}

void RowWriter::Impl::AddRow(int64_t env, absl::FunctionRef<void(absl::Span<char> row)> pack) {
  std::string* const rows = RowsOf(env);
  const size_t begin = rows->size();
  if (codec_.sizes().all_alike()) {
    rows->resize(begin + max_row_bytes_);
    pack(absl::MakeSpan(rows->data() + begin, max_row_bytes_));
  } else {
    packed_.assign(codec_.sizes().packed(), 0);
    pack(absl::MakeSpan(packed_.data(), packed_.size()));
    codec_.Encode(packed_, rows);
  }
  message_->row_bytes += static_cast<int64_t>(rows->size() - begin);
  ++message_->num_rows;
}

void RowWriter::Impl::Seal() {
  seal_at_ = absl::InfiniteFuture();
  if (message_->row_bytes == 0) return;
  for (EnvState& env : envs_) env.run = -1;
  current().rows.Push(std::exchange(message_, std::make_unique<RowMessage>()));
  Send(current());
}

absl::Status RowWriter::Impl::SendNow() {
  absl::MutexLock lock(&mu_);
  Seal();
  return stopped_ ? absl::CancelledError("row writer is stopped") : permanent_;
}

absl::Status RowWriter::Impl::Flush(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  Seal();
  const auto flushed = [this] {
    mu_.AssertReaderHeld();
    return UnackedBytes() == 0;
  };
  const auto ready = [&] {
    mu_.AssertReaderHeld();
    return flushed() || stopped_ || !permanent_.ok();
  };
  mu_.AwaitWithDeadline(absl::Condition(&ready), deadline);
  if (flushed()) return absl::OkStatus();
  if (!permanent_.ok()) return permanent_;
  if (stopped_) return absl::CancelledError("row writer is stopped");
  std::string missing;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (lanes_[i].rows.empty()) continue;
    absl::StrAppend(&missing, "; ", options_.directory->Name(i), " has not acked ",
                    lanes_[i].rows.num_rows(), " rows (",
                    lanes_[i].open ? "connected" : lanes_[i].last_break.message(), ")");
  }
  return absl::DeadlineExceededError(absl::StrCat("rows are not flushed", missing));
}

int64_t RowWriter::Impl::UnrollRequests(uint64_t version) const {
  absl::MutexLock lock(&mu_);
  return unrolls_wanted_of_ == version ? unroll_requests_ : 0;
}

absl::Status RowWriter::Impl::status() const {
  absl::MutexLock lock(&mu_);
  return permanent_;
}

std::string RowWriter::Impl::shard_name() const {
  absl::MutexLock lock(&mu_);
  return current().link.Name();
}

RowWriterStats RowWriter::Impl::stats() const {
  absl::MutexLock lock(&mu_);
  RowWriterStats stats = stats_;
  for (const Lane& lane : lanes_) stats.rows_acked += lane.rows.rows_acked();
  stats.unacked_bytes = UnackedBytes();
  stats.shard = static_cast<int32_t>(current_);
  stats.connected = current().open;
  return stats;
}

std::vector<RowStream> RowWriter::Impl::streams() const {
  absl::MutexLock lock(&mu_);
  absl::flat_hash_map<uint64_t, int64_t> unsealed;
  for (const proto::RowRun& run : message_->request.runs()) {
    unsealed[run.stream()] = codec_.sizes().Count(run.rows()).value_or(0);
  }
  std::vector<RowStream> result;
  for (size_t shard = 0; shard < lanes_.size(); ++shard) {
    for (const auto& [id, stream] : lanes_[shard].rows.streams()) {
      result.push_back({.id = id,
                        .env = stream.env,
                        .shard = static_cast<int32_t>(shard),
                        .appended_rows = stream.appended + unsealed[id],
                        .acked_rows = stream.acked});
    }
  }
  return result;
}

void RowWriter::Impl::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  timer_.Signal();
  for (Lane& lane : lanes_) {
    if (lane.call != nullptr) lane.call->Cancel();
  }
}

RowWriter::RowWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RowWriter::~RowWriter() = default;

absl::StatusOr<std::unique_ptr<RowWriter>> RowWriter::Create(RowWriterOptions options,
                                                             const Layout& layout) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  auto directory = ShardDirectory::OrFixed(options.directory, options.shards, options.credentials);
  if (!directory.ok()) return directory.status();
  options.directory = *std::move(directory);
  return std::unique_ptr<RowWriter>(
      new RowWriter(std::make_unique<Impl>(std::move(options), layout)));
}

absl::Status RowWriter::WaitConnected(absl::Time deadline) {
  return impl_->WaitConnected(deadline);
}
absl::StatusOr<uint64_t> RowWriter::Append(int64_t env,
                                           absl::FunctionRef<void(absl::Span<char>)> pack) {
  return impl_->Append(env, pack);
}
absl::Status RowWriter::SendNow() { return impl_->SendNow(); }
absl::Status RowWriter::Flush(absl::Time deadline) { return impl_->Flush(deadline); }
int64_t RowWriter::UnrollRequests(uint64_t version) const { return impl_->UnrollRequests(version); }
absl::Status RowWriter::status() const { return impl_->status(); }
std::string RowWriter::shard_name() const { return impl_->shard_name(); }
RowWriterStats RowWriter::stats() const { return impl_->stats(); }
std::vector<RowStream> RowWriter::streams() const { return impl_->streams(); }
void RowWriter::Stop() { impl_->Stop(); }

}  // namespace troupe
