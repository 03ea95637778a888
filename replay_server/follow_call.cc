#include "replay_server/follow_call.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/replay.pb.h"
#include "replay_server/wire.h"

namespace troupe {
namespace {

// How long rows gather once a follower that had everything is woken: it bounds what small appends
// cost, and what a follower lags behind.
constexpr absl::Duration kGatherTime = absl::Milliseconds(1);

// Between two replies that say that the follower has everything.
constexpr absl::Duration kTellInterval = absl::Seconds(1);

}  // namespace

FollowCall* FollowCall::Start(Shard* shard, Peer peer, const grpc::ByteBuffer& request) {
  std::shared_ptr<FollowCall> call(new FollowCall(shard, std::move(peer), request));
  call->Begin();
  return call.get();
}

void FollowCall::Enter() {
  if (absl::Status status = Open(); !status.ok()) return End(status);
  SendNext();
}

absl::Status FollowCall::Open() {
  proto::FollowRequest request;
  if (absl::Status status = DecodeMessage(&request_bytes_, &request); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Follower>> follower = Follower::Make(request);
  if (!follower.ok()) return follower.status();
  absl::StatusOr<Table*> table = shard_->FindTable(request.table());
  if (!table.ok()) return table.status();
  if (absl::Status status = shard_->ClaimRun(request.run()); !status.ok()) return status;
  const uint64_t most = std::max<uint64_t>(kFollowChunkBytes, shard_->options().max_message_bytes);
  if (!shard_->budget().Take(most)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("replay_server.message_budget_bytes has no ", most,
                     " bytes left for the replies of one more follower"));
  }
  taken_bytes_ = most;
  follower_ = *std::move(follower);
  if (absl::Status status = (*table)->StartFollowing(follower_); !status.ok()) return status;
  table_ = *table;
  table_->CountFollowCall(1);
  return absl::OkStatus();
}

void FollowCall::SendNext() {
  if (writing_ || ending_.has_value()) return;
  const bool has_rows = table_->FollowOrWait(follower_, waiter_, &batch_);
  if (!has_rows) {
    const Clock::duration early = may_tell_ - Clock::now();
    if (told_everything_ || telling_later_) return;
    if (early > Clock::duration::zero()) {
      telling_later_ = true;
      return SendNextAfter(absl::FromChrono(early));
    }
    may_tell_ = Clock::now() + absl::ToChronoNanoseconds(kTellInterval);
  }
  told_everything_ = !has_rows;
  rows_sent_ += batch_.num_rows;
  reply_bytes_ = EncodeFollowReply(&batch_);
  writing_ = true;
  StartWrite(&reply_bytes_);
}

void FollowCall::SendNextAfter(absl::Duration delay) {
  shard_->scheduler().After(delay, [weak = weak_from_this(), this] {
    const std::shared_ptr<StreamCall> self = weak.lock();
    if (self == nullptr) return;
    absl::MutexLock lock(&mu_);
    telling_later_ = false;
    SendNext();
  });
}

void FollowCall::Wake() {
  absl::MutexLock lock(&mu_);
  if (!ending_.has_value()) SendNextAfter(kGatherTime);
}

void FollowCall::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  writing_ = false;
  if (!ok) return End(absl::CancelledError("the follower is gone"));
  SendNext();
  FinishIfIdle();
}

void FollowCall::DescribeItself(proto::CallDescription* description) {
  description->set_method("Follow");
  if (table_ != nullptr) description->set_rows(rows_sent_);
}

void FollowCall::Leave() {
  if (taken_bytes_ > 0) shard_->budget().Return(taken_bytes_);
  if (table_ == nullptr) return;
  table_->StopFollowing(follower_, waiter_);
  table_->CountFollowCall(-1);
}

}  // namespace troupe
