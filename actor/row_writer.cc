#include "actor/row_writer.h"

#include <algorithm>
#include <random>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "actor/unacked_rows.h"
#include "common/bidi_call.h"
#include "common/channel.h"
#include "proto/replay.grpc.pb.h"

namespace troupe {
namespace {

// A random 64-bit name; never 0.
uint64_t RandomId() {
  static thread_local std::random_device device;
  const uint64_t id = uint64_t{device()} << 32 | device();
  return id == 0 ? 1 : id;
}

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

// One mutex guards all; gRPC's operations are only started under it, never waited for.
class RowWriter::Impl final {
 public:
  Impl(RowWriterOptions options, const Layout& layout,
       std::vector<std::shared_ptr<grpc::Channel>> channels);
  ~Impl();

  absl::Status WaitConnected(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Append(int64_t env, absl::FunctionRef<void(absl::Span<char>)> pack)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Flush(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mu_);
  RowWriterStats stats() const ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<RowStream> streams() const ABSL_LOCKS_EXCLUDED(mu_);
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using AppendCall = BidiCall<proto::AppendRequest, proto::AppendReply>;

  // The way to one shard.
  struct Lane {
    Lane(std::shared_ptr<grpc::Channel> to, int64_t stride_bytes, const RowWriterOptions& options)
        : channel(std::move(to)),
          rows(stride_bytes),
          backoff(options.reconnect_min, options.reconnect_max, RandomId()) {}

    const std::shared_ptr<grpc::Channel> channel;
    UnackedRows rows;
    Backoff backoff;
    std::unique_ptr<AppendCall> call;
    bool open = false;  // the shard has answered; rows may be sent
    bool writing = false;
    bool held_back = false;  // by the shard's rate limiter
    std::shared_ptr<const RowMessage> written;  // kept while it is being written
    int64_t window_bytes = 0;
    absl::Time next_attempt = absl::InfinitePast();
    absl::Time away_since = absl::Now();  // meaningful while not open
    absl::Status fault;                   // why we cancelled the call
    absl::Status last_break;              // how the last call ended
  };

  // Where the next row of an environment goes.
  struct EnvState {
    uint64_t stream = 0;
    int64_t next_row = 0;
    int run = -1;  // index in the message under construction
  };

  Lane& current() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return lanes_[current_]; }
  const Lane& current() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return lanes_[current_]; }

  absl::Status MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasRoom() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  Lane* LaneToDropFrom() ABSL_SHARED_LOCKS_REQUIRED(mu_);
  int64_t UnackedBytes() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  absl::Span<char> AddRow(int64_t env) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Seal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  void BeginStreams() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MoveTo(size_t shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool MayMove(absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool Wanted(size_t shard, absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  void StartCall(size_t shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Send(Lane& lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Resume(size_t shard, const proto::AppendReply& reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Called by gRPC's threads.
  void OnReply(size_t shard, const proto::AppendReply& reply) ABSL_LOCKS_EXCLUDED(mu_);
  void OnWritten(size_t shard) ABSL_LOCKS_EXCLUDED(mu_);
  void OnBroken(size_t shard) ABSL_LOCKS_EXCLUDED(mu_);
  void OnDone(size_t shard, const grpc::Status& status) ABSL_LOCKS_EXCLUDED(mu_);

  void RunTimers() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Time HandleTimers(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const RowWriterOptions options_;
  const proto::Layout layout_;
  const int64_t stride_bytes_;

  mutable absl::Mutex mu_;
  absl::CondVar timer_;
  std::deque<Lane> lanes_ ABSL_GUARDED_BY(mu_);
  size_t current_ ABSL_GUARDED_BY(mu_);
  std::vector<EnvState> envs_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<RowMessage> message_ ABSL_GUARDED_BY(mu_);  // under construction
  absl::Time seal_at_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  absl::Status permanent_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  RowWriterStats stats_ ABSL_GUARDED_BY(mu_);

  std::thread timers_;  // last, so that it sees the rest constructed
};

RowWriter::Impl::Impl(RowWriterOptions options, const Layout& layout,
                      std::vector<std::shared_ptr<grpc::Channel>> channels)
    : options_(std::move(options)),
      layout_(layout.proto()),
      stride_bytes_(layout.stride_bytes()),
      current_(options_.first_shard % channels.size()),
      envs_(options_.num_envs),
      message_(std::make_unique<RowMessage>()) {
  {
    absl::MutexLock lock(&mu_);
    for (auto& channel : channels) lanes_.emplace_back(channel, stride_bytes_, options_);
    BeginStreams();
  }
  timers_ = std::thread([this] { RunTimers(); });
}

RowWriter::Impl::~Impl() {
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
      absl::StrCat("no shard has accepted rows yet; ", options_.shards[current_], ": ",
                   current().last_break.ok() ? "no answer" : current().last_break.message()));
}

absl::Status RowWriter::Impl::Append(int64_t env, absl::FunctionRef<void(absl::Span<char>)> pack) {
  absl::MutexLock lock(&mu_);
  if (env < 0 || env >= options_.num_envs) {
    return absl::InvalidArgumentError(absl::StrCat("environment ", env, " of ", options_.num_envs));
  }
  if (absl::Status status = MakeRoom(); !status.ok()) return status;
  pack(AddRow(env));
  ++stats_.rows_appended;
  if (message_->row_bytes >= options_.message_bytes ||
      message_->row_bytes >= options_.message_rows * stride_bytes_) {
    Seal();
  }
  return absl::OkStatus();
}

int64_t RowWriter::Impl::UnackedBytes() const {
  int64_t bytes = message_->row_bytes;
  for (const Lane& lane : lanes_) bytes += lane.rows.bytes();
  return bytes;
}

bool RowWriter::Impl::HasRoom() const {
  const int64_t bytes = UnackedBytes();
  return bytes == 0 || bytes + stride_bytes_ <= options_.max_unacked_bytes;
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
    mu_.Await(absl::Condition(&ready));
    stats_.blocked += absl::Now() - start;
  }
  return stopped_ ? absl::CancelledError("row writer is stopped") : permanent_;
}

absl::Span<char> RowWriter::Impl::AddRow(int64_t env) {
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
    run->mutable_rows()->reserve(options_.message_bytes / options_.num_envs + stride_bytes_);
  }
  ++state.next_row;
  message_->row_bytes += stride_bytes_;
  std::string* rows = request.mutable_runs(state.run)->mutable_rows();
  rows->resize(rows->size() + stride_bytes_);
  return absl::MakeSpan(rows->data() + rows->size() - stride_bytes_, stride_bytes_);
}

void RowWriter::Impl::Seal() {
  seal_at_ = absl::InfiniteFuture();
  if (message_->row_bytes == 0) return;
  for (EnvState& env : envs_) env.run = -1;
  current().rows.Push(std::exchange(message_, std::make_unique<RowMessage>()));
  Send(current());
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
    absl::StrAppend(&missing, "; ", options_.shards[i], " has not acked ",
                    lanes_[i].rows.bytes() / stride_bytes_, " rows (",
                    lanes_[i].open ? "connected" : lanes_[i].last_break.message(), ")");
  }
  return absl::DeadlineExceededError(absl::StrCat("rows are not flushed", missing));
}

absl::Status RowWriter::Impl::status() const {
  absl::MutexLock lock(&mu_);
  return permanent_;
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
    unsealed[run.stream()] = run.rows().size() / stride_bytes_;
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

// Connections.

void RowWriter::Impl::BeginStreams() {
  for (int64_t env = 0; env < options_.num_envs; ++env) {
    envs_[env] = {.stream = RandomId()};
    current().rows.BeginStream(envs_[env].stream, env);
  }
}

bool RowWriter::Impl::MayMove(absl::Time now) const {
  return !current().open && now >= current().away_since + options_.move_after;
}

void RowWriter::Impl::MoveTo(size_t shard) {
  Seal();
  current().rows.EndStreams();
  current_ = shard;
  BeginStreams();
  ++stats_.moves;
}

bool RowWriter::Impl::Wanted(size_t shard, absl::Time now) const {
  return shard == current_ || !lanes_[shard].rows.empty() || MayMove(now);
}

void RowWriter::Impl::StartCall(size_t shard) {
  Lane& lane = lanes_[shard];
  proto::AppendRequest request;
  proto::AppendOpen& open = *request.mutable_open();
  open.set_run(options_.run);
  open.set_table(options_.table);
  *open.mutable_layout() = layout_;
  for (const uint64_t id : lane.rows.LiveStreams()) open.add_streams(id);
  lane.writing = true;
  lane.fault = absl::OkStatus();
  lane.call = AppendCall::Start(
      [&lane](grpc::ClientContext* context, AppendCall* call) {
        proto::Replay::NewStub(lane.channel)->async()->Append(context, call);
      },
      std::move(request),
      {.reply = [this, shard](const proto::AppendReply& reply) { OnReply(shard, reply); },
       .written = [this, shard] { OnWritten(shard); },
       .broken = [this, shard] { OnBroken(shard); },
       .done = [this, shard](const grpc::Status& status) { OnDone(shard, status); }});
}

void RowWriter::Impl::Send(Lane& lane) {
  if (!lane.open || lane.writing) return;
  lane.written = lane.rows.NextToSend(lane.window_bytes);
  if (lane.written == nullptr) return;
  lane.writing = true;
  lane.call->Write(&lane.written->request);
}

absl::Status RowWriter::Impl::Resume(size_t shard, const proto::AppendReply& reply) {
  Lane& lane = lanes_[shard];
  if (shard == current_) Seal();
  std::vector<StreamRename> renames;
  const absl::Status status = lane.rows.Resume(reply, RandomId, &renames);
  if (!status.ok()) return status;
  for (const StreamRename& rename : renames) {
    ++stats_.streams_renamed;
    for (EnvState& env : envs_) {
      if (env.stream != rename.from) continue;
      env.stream = rename.to;
      env.next_row -= rename.lost_rows;
    }
  }
  lane.open = true;
  lane.held_back = reply.held_back();
  timer_.Signal();  // others that were tried meanwhile may not be wanted any more
  lane.window_bytes = reply.window_bytes();
  lane.backoff.Reset();
  if (shard != current_ && MayMove(absl::Now())) MoveTo(shard);
  return absl::OkStatus();
}

void RowWriter::Impl::OnReply(size_t shard, const proto::AppendReply& reply) {
  absl::MutexLock lock(&mu_);
  Lane& lane = lanes_[shard];
  const absl::Status status = lane.open ? lane.rows.Ack(reply) : Resume(shard, reply);
  if (!status.ok()) {
    lane.fault = status;
    lane.call->Cancel();
    return;
  }
  // Rows made before the older ones are in would only stand in a queue and grow old.
  if (reply.held_back() || lane.rows.empty()) lane.held_back = reply.held_back();
  Send(lane);
  if (!Wanted(shard, absl::Now())) timer_.Signal();
}

void RowWriter::Impl::OnWritten(size_t shard) {
  absl::MutexLock lock(&mu_);
  lanes_[shard].writing = false;
  lanes_[shard].written.reset();
  Send(lanes_[shard]);
}

void RowWriter::Impl::OnBroken(size_t shard) {
  absl::MutexLock lock(&mu_);
  Lane& lane = lanes_[shard];
  if (lane.open) lane.away_since = absl::Now();
  lane.open = false;
  lane.held_back = false;
}

void RowWriter::Impl::OnDone(size_t shard, const grpc::Status& status) {
  absl::MutexLock lock(&mu_);
  Lane& lane = lanes_[shard];
  lane.call.reset();
  lane.written.reset();
  lane.last_break = FromGrpc(status, "appending to", options_.shards[shard]);
  if (!lane.fault.ok()) lane.last_break = lane.fault;
  if (IsPermanent(lane.last_break) && permanent_.ok()) permanent_ = lane.last_break;
  const absl::Time now = absl::Now();
  lane.next_attempt = now + lane.backoff.Next();
  if (!stopped_ && Wanted(shard, now)) ++stats_.reconnects;
  timer_.Signal();
}

void RowWriter::Impl::RunTimers() {
  absl::MutexLock lock(&mu_);
  while (!stopped_) {
    const absl::Time next = HandleTimers(absl::Now());
    timer_.WaitWithDeadline(&mu_, next);
  }
}

// Does what is due at `now`; returns when to look again.
absl::Time RowWriter::Impl::HandleTimers(absl::Time now) {
  if (now >= seal_at_) Seal();
  absl::Time next = seal_at_;
  if (!permanent_.ok()) return next;
  if (!current().open && !MayMove(now)) {
    next = std::min(next, current().away_since + options_.move_after);
  }
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (lanes_[i].open && i != current_ && MayMove(now)) MoveTo(i);
    if (lanes_[i].call != nullptr) {
      if (!Wanted(i, now)) lanes_[i].call->Cancel();
    } else if (!Wanted(i, now)) {
      continue;
    } else if (now >= lanes_[i].next_attempt) {
      StartCall(i);
    } else {
      next = std::min(next, lanes_[i].next_attempt);
    }
  }
  return next;
}

RowWriter::RowWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RowWriter::~RowWriter() = default;

absl::StatusOr<std::unique_ptr<RowWriter>> RowWriter::Create(RowWriterOptions options,
                                                             const Layout& layout) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  auto channels = MakeChannels(options.shards, options.insecure);
  if (!channels.ok()) return channels.status();
  return std::unique_ptr<RowWriter>(
      new RowWriter(std::make_unique<Impl>(std::move(options), layout, *std::move(channels))));
}

absl::Status RowWriter::WaitConnected(absl::Time deadline) {
  return impl_->WaitConnected(deadline);
}
absl::Status RowWriter::Append(int64_t env, absl::FunctionRef<void(absl::Span<char>)> pack) {
  return impl_->Append(env, pack);
}
absl::Status RowWriter::Flush(absl::Time deadline) { return impl_->Flush(deadline); }
absl::Status RowWriter::status() const { return impl_->status(); }
RowWriterStats RowWriter::stats() const { return impl_->stats(); }
std::vector<RowStream> RowWriter::streams() const { return impl_->streams(); }
void RowWriter::Stop() { impl_->Stop(); }

}  // namespace troupe
