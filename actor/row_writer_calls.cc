#include <algorithm>
#include <random>
#include <utility>

#include "actor/row_writer_impl.h"
#include "proto/replay.grpc.pb.h"

namespace troupe {

uint64_t RowWriter::Impl::RandomId() {
  static thread_local std::random_device device;
  const uint64_t id = uint64_t{device()} << 32 | device();
  return id == 0 ? 1 : id;
}

void RowWriter::Impl::BeginStreams() {
  for (int64_t env = 0; env < options_.num_envs; ++env) {
    envs_[env] = {.stream = RandomId()};
    current().rows.BeginStream(envs_[env].stream, env);
  }
}

void RowWriter::Impl::AddLanes() {
  if (lanes_.size() == options_.directory->size()) return;
  while (lanes_.size() < options_.directory->size()) {
    lanes_.emplace_back(ShardLink(options_.directory, lanes_.size()), codec_.sizes(),
                        Backoff(options_.reconnect_min, options_.reconnect_max, RandomId()));
  }
  home_ = std::min(options_.directory->Choose(options_.first_shard), lanes_.size() - 1);
}

void RowWriter::Impl::OnShardsChanged() {
  absl::MutexLock lock(&mu_);
  AddLanes();
  for (Lane& lane : lanes_) {
    if (lane.call != nullptr && lane.link.IsStale()) lane.call->Cancel();
    if (!lane.open) lane.next_attempt = absl::InfinitePast();
  }
  timer_.Signal();
}

// Are rows to go to another shard, because this one is drained or has been away for long?
bool RowWriter::Impl::IsAway(absl::Time now) const {
  if (current().open) return current().draining;
  return now >= current().away_since + options_.move_after;
}

bool RowWriter::Impl::MayMoveTo(size_t shard, absl::Time now) const {
  return shard != current_ && !lanes_[shard].draining && (shard == home_ || IsAway(now));
}

void RowWriter::Impl::MoveTo(size_t shard) {
  Seal();
  current().rows.EndStreams();
  current_ = shard;
  BeginStreams();
  ++stats_.moves;
}

bool RowWriter::Impl::Wanted(size_t shard, absl::Time now) const {
  // The call to one that is drained stays, to hear when that is over.
  return shard == current_ || shard == home_ || !lanes_[shard].rows.empty() || IsAway(now);
}

void RowWriter::Impl::StartCall(size_t shard) {
  Lane& lane = lanes_[shard];
  proto::AppendRequest request;
  proto::AppendOpen& open = *request.mutable_open();
  open.set_run(options_.run);
  open.set_table(options_.table);
  *open.mutable_layout() = layout_;
  open.set_max_message_bytes(options_.message_bytes + max_row_bytes_ +
                             kRunOverheadBytes * options_.num_envs);
  for (const uint64_t id : lane.rows.LiveStreams()) open.add_streams(id);
  lane.writing = true;
  lane.fault = absl::OkStatus();
  lane.link.Renew();
  lane.call = AppendCall::Start(
      [&lane](grpc::ClientContext* context, AppendCall* call) {
        lane.link.Address(context);
        proto::Replay::NewStub(lane.link.channel())->async()->Append(context, call);
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
  if (lane.written == nullptr) {
    if (!lane.draining || lane.drained || !lane.rows.empty()) return;
    lane.drained = true;
    auto answer = std::make_shared<RowMessage>();
    answer->request.set_drained(true);
    lane.written = std::move(answer);
  }
  lane.writing = true;
  lane.call->Write(&lane.written->request);
}

void RowWriter::Impl::NoteDraining(size_t shard, bool draining) {
  Lane& lane = lanes_[shard];
  if (lane.draining == draining) return;
  lane.draining = draining;
  lane.drained = false;
  if (shard == current_) Seal();  // nothing else may be on its way once `drained` is said
  timer_.Signal();                // rows may have to go to another shard, or to this one again
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
  NoteDraining(shard, reply.draining());
  if (MayMoveTo(shard, absl::Now())) MoveTo(shard);
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
  NoteDraining(shard, reply.draining());
  if (const uint64_t version = reply.unrolls_wanted_of(); version != 0 && shard == current_) {
    unroll_requests_ = version == unrolls_wanted_of_ ? unroll_requests_ + 1 : 1;
    unrolls_wanted_of_ = version;
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
  lane.held_back = lane.draining = lane.drained = false;
}

void RowWriter::Impl::OnDone(size_t shard, const grpc::Status& status) {
  absl::MutexLock lock(&mu_);
  Lane& lane = lanes_[shard];
  lane.call.reset();
  lane.written.reset();
  lane.last_break = FromGrpc(status, "appending to", options_.directory->Name(shard));
  if (!lane.fault.ok()) lane.last_break = lane.fault;
  if (IsPermanent(lane.last_break) && permanent_.ok()) permanent_ = lane.last_break;
  lane.link.NoteEnd(lane.last_break);
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
  if (!current().open && !IsAway(now)) {
    next = std::min(next, current().away_since + options_.move_after);
  }
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (lanes_[i].open && MayMoveTo(i, now)) MoveTo(i);
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

}  // namespace troupe
