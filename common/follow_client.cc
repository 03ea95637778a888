#include "common/follow_client.h"

#include <algorithm>
#include <deque>
#include <random>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/channel.h"
#include "common/follow_position.h"
#include "common/read_call.h"
#include "common/shard_link.h"
#include "proto/replay.grpc.pb.h"

namespace troupe {
namespace {

// A shard that takes rows all the time may never have sent all of them: of those that it has stored
// ever, so many may be missing.
uint64_t AsGoodAsNone(uint64_t rows) { return std::max<uint64_t>(rows / 100, 1024); }

}  // namespace

// One mutex guards all; gRPC's operations are only started under it, never waited for.
class FollowClient::Impl final {
 public:
  explicit Impl(FollowClientOptions options);
  ~Impl();

  absl::StatusOr<proto::FollowReply> Next(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);
  FollowStats stats() const ABSL_LOCKS_EXCLUDED(mu_);
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using FollowCall = ReadCall<proto::FollowRequest, proto::FollowReply>;

  struct Lane {
    Lane(ShardLink to, Backoff delays, const FollowPosition& from)
        : link(std::move(to)), backoff(std::move(delays)), position(from) {}

    ShardLink link;
    Backoff backoff;
    FollowPosition position;
    std::unique_ptr<FollowCall> call;
    bool from_the_beginning = true;  // the call, or the next one
    bool up = false;                 // the call has replied
    bool tried = false;              // was up, or found gone, at least once
    bool paused = false;             // the call waits for ReadOn
    bool caught_up = false;          // everything was received, once
    int32_t queued = 0;              // replies
    absl::Time next_attempt = absl::InfinitePast();
    absl::Status fault;  // why we cancelled the call
    uint64_t missed_in_call = 0;
    // Rows that the table has stored ever, and of these those that came or are lost; as counted
    // from the first row on, or since everything was received.
    uint64_t appended = 0;
    uint64_t accounted = 0;
  };
  struct Queued {
    size_t shard = 0;
    proto::FollowReply reply;
  };

  void AddLanes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnShardsChanged() ABSL_LOCKS_EXCLUDED(mu_);
  // Makes the calls that are due; returns when to look again.
  absl::Time StartCalls(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StartCall(size_t shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StartAgain(Lane& lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReadOn(Lane& lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Cancel(Lane& lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Count(Lane& lane, const proto::FollowReply& reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Decode(proto::FollowReply* reply) const;
  void OnReply(size_t shard, proto::FollowReply* reply) ABSL_LOCKS_EXCLUDED(mu_);
  void OnDone(size_t shard, const grpc::Status& status) ABSL_LOCKS_EXCLUDED(mu_);

  const FollowClientOptions options_;
  int listener_ = 0;  // of the directory

  mutable absl::Mutex mu_;
  std::deque<Lane> lanes_ ABSL_GUARDED_BY(mu_);
  std::deque<Queued> replies_ ABSL_GUARDED_BY(mu_);  // with rows
  bool call_due_ ABSL_GUARDED_BY(mu_) = false;       // perhaps: one ended, or a shard is elsewhere
  absl::Status permanent_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  FollowStats stats_ ABSL_GUARDED_BY(mu_);
};

FollowClient::Impl::Impl(FollowClientOptions options) : options_(std::move(options)) {
  listener_ = options_.directory->AddListener([this] { OnShardsChanged(); });
  absl::MutexLock lock(&mu_);
  AddLanes();
}

void FollowClient::Impl::AddLanes() {
  const FollowPosition beginning(options_.capacity_rows, options_.stride_bytes);
  while (lanes_.size() < options_.directory->size()) {
    lanes_.emplace_back(
        ShardLink(options_.directory, lanes_.size()),
        Backoff(options_.reconnect_min, options_.reconnect_max, std::random_device{}()), beginning);
  }
}

void FollowClient::Impl::OnShardsChanged() {
  absl::MutexLock lock(&mu_);
  AddLanes();
  for (Lane& lane : lanes_) {
    if (lane.call != nullptr && lane.link.IsStale()) Cancel(lane);
    if (!lane.up) lane.next_attempt = absl::InfinitePast();
  }
  call_due_ = true;
}

FollowClient::Impl::~Impl() {
  options_.directory->RemoveListener(listener_);
  Stop();
  const auto idle = [this] {
    mu_.AssertReaderHeld();
    return std::all_of(lanes_.begin(), lanes_.end(),
                       [](const Lane& lane) { return lane.call == nullptr; });
  };
  mu_.LockWhen(absl::Condition(&idle));
  mu_.Unlock();
}

void FollowClient::Impl::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  for (Lane& lane : lanes_) {
    if (lane.call != nullptr) Cancel(lane);
  }
}

void FollowClient::Impl::Cancel(Lane& lane) {
  lane.call->Cancel();
  if (lane.paused) ReadOn(lane);
}

void FollowClient::Impl::ReadOn(Lane& lane) {
  lane.paused = false;
  lane.call->ReadOn();
}

absl::Time FollowClient::Impl::StartCalls(absl::Time now) {
  absl::Time next = absl::InfiniteFuture();
  if (stopped_ || !permanent_.ok()) return next;
  for (size_t shard = 0; shard < lanes_.size(); ++shard) {
    const Lane& lane = lanes_[shard];
    if (lane.call != nullptr) continue;
    if (now >= lane.next_attempt) {
      StartCall(shard);
    } else {
      next = std::min(next, lane.next_attempt);
    }
  }
  return next;
}

void FollowClient::Impl::StartCall(size_t shard) {
  Lane& lane = lanes_[shard];
  proto::FollowRequest request;
  request.set_run(options_.run);
  request.set_table(options_.table);
  lane.position.Describe(&request);
  if (lane.position.at_the_beginning()) StartAgain(lane);
  lane.from_the_beginning = lane.position.at_the_beginning();
  lane.fault = absl::OkStatus();
  lane.missed_in_call = 0;
  lane.link.Renew();
  lane.call = FollowCall::Start(
      [&lane](grpc::ClientContext* context, const proto::FollowRequest* first, FollowCall* call) {
        lane.link.Address(context);
        proto::Replay::NewStub(lane.link.channel())->async()->Follow(context, first, call);
      },
      std::move(request),
      {.reply = [this, shard](proto::FollowReply* reply) { OnReply(shard, reply); },
       .done = [this, shard](const grpc::Status& status) { OnDone(shard, status); }});
}

// From the table's first row.
void FollowClient::Impl::StartAgain(Lane& lane) {
  lane.position.Reset();
  lane.caught_up = false;
  lane.accounted = 0;
}

void FollowClient::Impl::Count(Lane& lane, const proto::FollowReply& reply) {
  uint64_t rows = 0;
  for (const proto::FollowedRows& run : reply.runs()) {
    rows += run.rows().size() / static_cast<uint64_t>(options_.stride_bytes);
  }
  const uint64_t missed = reply.rows_missed() - std::min(lane.missed_in_call, reply.rows_missed());
  // What was evicted before there was a follower was not missed.
  const bool before_us = lane.from_the_beginning && !lane.up;
  lane.missed_in_call = reply.rows_missed();
  lane.appended = reply.counts().rows_appended();
  lane.accounted = rows == 0 ? lane.appended : lane.accounted + rows + missed;
  lane.caught_up |= lane.accounted + AsGoodAsNone(lane.appended) >= lane.appended;
  stats_.rows += rows;
  if (!before_us) stats_.rows_missed += missed;
  if (std::exchange(lane.up, true)) return;
  lane.tried = true;
  lane.backoff.Reset();
}

absl::Status FollowClient::Impl::Decode(proto::FollowReply* reply) const {
  if (options_.codec == nullptr) return absl::OkStatus();
  for (proto::FollowedRows& run : *reply->mutable_runs()) {
    std::string packed;
    absl::Status status = options_.codec->DecodeAll(run.rows(), &packed);
    if (!status.ok()) return status;
    *run.mutable_rows() = std::move(packed);
  }
  return absl::OkStatus();
}

void FollowClient::Impl::OnReply(size_t shard, proto::FollowReply* reply) {
  absl::Status decoded = Decode(reply);
  absl::MutexLock lock(&mu_);
  Lane& lane = lanes_[shard];
  if (lane.fault.ok() && !stopped_) {
    lane.fault = decoded.ok() ? lane.position.Advance(*reply) : std::move(decoded);
    if (lane.fault.ok()) {
      Count(lane, *reply);
    } else {
      lane.call->Cancel();
    }
  }
  const bool usable = lane.fault.ok() && !stopped_;
  if (usable && reply->runs_size() > 0) {
    replies_.push_back({shard, std::move(*reply)});
    if (++lane.queued >= options_.max_replies) {
      lane.paused = true;
      return;
    }
  }
  ReadOn(lane);
}

void FollowClient::Impl::OnDone(size_t shard, const grpc::Status& status) {
  absl::MutexLock lock(&mu_);
  Lane& lane = lanes_[shard];
  lane.call.reset();
  call_due_ = true;
  const absl::Status end = FromGrpc(status, "following", options_.directory->Name(shard));
  const bool is_refused = !lane.up && absl::IsFailedPrecondition(end);
  lane.up = false;
  lane.tried = true;
  ++stats_.reconnects;
  if (!lane.fault.ok() || (is_refused && !lane.position.at_the_beginning())) {
    ++stats_.restarts;
    StartAgain(lane);
  } else if (IsPermanent(end) && permanent_.ok()) {
    permanent_ = end;
  }
  lane.link.NoteEnd(end);
  lane.next_attempt = absl::Now() + lane.backoff.Next();
}

absl::StatusOr<proto::FollowReply> FollowClient::Impl::Next(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  while (true) {
    const absl::Time now = absl::Now();
    call_due_ = false;
    const absl::Time next = StartCalls(now);
    if (!replies_.empty() && !stopped_) break;
    if (stopped_) return absl::CancelledError("follow client is stopped");
    if (!permanent_.ok()) return permanent_;
    if (now >= deadline) return absl::DeadlineExceededError("no rows have come");
    const auto ready = [this] {
      mu_.AssertReaderHeld();
      return !replies_.empty() || call_due_ || stopped_ || !permanent_.ok();
    };
    mu_.AwaitWithDeadline(absl::Condition(&ready), std::min(deadline, next));
  }
  Queued taken = std::move(replies_.front());
  replies_.pop_front();
  Lane& lane = lanes_[taken.shard];
  --lane.queued;
  if (lane.paused) ReadOn(lane);
  return std::move(taken.reply);
}

FollowStats FollowClient::Impl::stats() const {
  absl::MutexLock lock(&mu_);
  FollowStats stats = stats_;
  stats.caught_up = true;
  for (const Lane& lane : lanes_) {
    stats.shards_up += lane.up;
    stats.caught_up &= lane.caught_up || (lane.tried && !lane.up);
    if (lane.up) stats.rows_behind += lane.appended - std::min(lane.appended, lane.accounted);
  }
  return stats;
}

FollowClient::FollowClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FollowClient::~FollowClient() = default;

absl::StatusOr<std::unique_ptr<FollowClient>> FollowClient::Create(FollowClientOptions options) {
  if (options.capacity_rows < 1 || options.stride_bytes < 1 || options.max_replies < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "capacity_rows is ", options.capacity_rows, ", stride_bytes ", options.stride_bytes,
        ", max_replies ", options.max_replies, "; all must be at least 1"));
  }
  auto directory = ShardDirectory::OrFixed(options.directory, options.shards, options.credentials);
  if (!directory.ok()) return directory.status();
  options.directory = *std::move(directory);
  return std::unique_ptr<FollowClient>(
      new FollowClient(std::make_unique<Impl>(std::move(options))));
}

absl::StatusOr<proto::FollowReply> FollowClient::Next(absl::Time deadline) {
  return impl_->Next(deadline);
}
FollowStats FollowClient::stats() const { return impl_->stats(); }
void FollowClient::Stop() { impl_->Stop(); }

}  // namespace troupe
