#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/replay_client_impl.h"
#include "proto/replay.grpc.pb.h"

namespace troupe {
namespace {

// How often a shard is asked for its counts while no window is asked of it.
constexpr absl::Duration kPollInterval = absl::Milliseconds(200);

}  // namespace

void ReplayClient::Impl::StartSession(size_t shard) {
  Lane& lane = lanes_[shard];
  lane.fault = absl::OkStatus();
  lane.greeted = false;
  lane.ending = false;
  lane.poll_open = false;
  lane.link.Renew();
  // The first answer, to a question that is not held back, says that the shard is up.
  lane.asked.push_back(Piece{});
  StartCall(shard, lane.windows);
  StartCall(shard, lane.polls);
}

void ReplayClient::Impl::StartCall(size_t shard, Wire& wire) {
  Lane& lane = lanes_[shard];
  const bool polls = &wire == &lane.polls;
  proto::SampleRequest first;
  first.mutable_open()->set_run(options_.run);
  first.mutable_open()->set_table(options_.table);
  wire.usable = true;
  wire.writing = true;
  wire.call = SampleCall::Start(
      [&lane](grpc::ClientContext* context, SampleCall* call) {
        lane.link.Address(context);
        proto::Replay::NewStub(lane.link.channel())->async()->Sample(context, call);
      },
      std::move(first),
      {.reply =
           [this, shard, polls](const proto::SampleReply& reply) {
             polls ? OnPolled(shard, reply) : OnWindows(shard, reply);
           },
       .written = [this, shard, polls] { OnWritten(shard, polls); },
       .broken = [this, shard, polls] { OnBroken(shard, polls); },
       .done = [this, shard, polls](const grpc::Status& status) { OnDone(shard, polls, status); }});
}

// Its events clear up the rest.
void ReplayClient::Impl::EndSession(Lane& lane) {
  lane.ending = true;
  for (const Wire* wire : {&lane.windows, &lane.polls}) {
    if (wire->call != nullptr) wire->call->Cancel();
  }
}

void ReplayClient::Impl::FillTotals(size_t shard, proto::SampleRequest& request) const {
  uint64_t inserted = 0;
  uint64_t preloaded = 0;
  uint64_t sampled = 0;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (i == shard) continue;
    inserted += lanes_[i].counts.inserted();
    preloaded += lanes_[i].counts.preloaded();
    sampled += Sampled(lanes_[i]) + lanes_[i].num_asked;
  }
  request.set_others_inserted(inserted);
  request.set_others_preloaded(preloaded);
  request.set_others_sampled(sampled);
  request.set_num_shards(lanes_.size());
  // Not before it has said whether it is the shard that it was.
  if (lanes_[shard].up) request.set_sampled_at_least(lanes_[shard].drawn);
}

void ReplayClient::Impl::SendNext(size_t shard) {
  Lane& lane = lanes_[shard];
  Wire& wire = lane.windows;
  if (!lane.up || !wire.usable || wire.writing) return;
  const bool tells_draws = lane.draws_due && !lane.draws_told;
  if (lane.to_send.empty() && !lane.priorities_go_alone && !tells_draws) return;
  // A question that carries them.
  if (lane.to_send.empty()) lane.to_send.push_back(Piece{.tells_draws = tells_draws});
  const int64_t num_windows = lane.to_send.front().count;
  wire.request.Clear();
  wire.request.set_num_windows(num_windows);
  if (num_windows > 0) {
    wire.request.set_timeout_ms(absl::ToInt64Milliseconds(options_.request_timeout));
  }
  FillTotals(shard, wire.request);
  TakePriorities(lane, wire.request);
  if (lane.to_send.front().tells_draws) {
    lane.draws_due = false;
    lane.draws_told = true;
  }
  lane.asked.push_back(std::move(lane.to_send.front()));
  lane.to_send.pop_front();
  wire.writing = true;
  wire.call->Write(&wire.request);
}

void ReplayClient::Impl::Poll(size_t shard, absl::Time now) {
  Lane& lane = lanes_[shard];
  Wire& wire = lane.polls;
  if (!lane.up || !wire.usable || wire.writing || lane.poll_open) return;
  wire.request.Clear();
  wire.request.set_inserted_above(lane.counts.inserted());
  if (starved_) wire.request.set_lacks_windows(options_.batch_size);
  wire.request.set_timeout_ms(absl::ToInt64Milliseconds(options_.request_timeout));
  FillTotals(shard, wire.request);
  lane.poll_open = true;
  lane.next_poll = now + kPollInterval;
  lane.answer_due = now + options_.request_timeout + options_.silence_timeout;
  wire.writing = true;
  wire.call->Write(&wire.request);
}

// A poll is answered after `request_timeout` at the latest, whatever its answer.
void ReplayClient::Impl::GiveUpSilent(size_t shard, absl::Time now) {
  Lane& lane = lanes_[shard];
  if (!lane.up || lane.ending || !lane.poll_open || now < lane.answer_due) return;
  lane.fault = absl::DeadlineExceededError(
      absl::StrCat("shard ", options_.directory->Name(shard), " has said nothing for ",
                   absl::FormatDuration(options_.request_timeout + options_.silence_timeout)));
  EndSession(lane);
}

// Counts and mass; those of a new session replace what was known, within one they only grow.
void ReplayClient::Impl::Learn(Lane& lane, const proto::SampleReply& reply) {
  const bool is_stale = lane.up && (reply.counts().sampled() < lane.counts.sampled() ||
                                    reply.counts().inserted() < lane.counts.inserted());
  if (!is_stale) lane.mass = reply.mass();  // else the other call's answer has come first
  lane.answer_due = absl::Now() + options_.request_timeout + options_.silence_timeout;
  const proto::TableCounts& now = reply.counts();
  proto::TableCounts& known = lane.counts;
  if (!lane.up && !lane.ending) {
    KeepDraws(lane, known, now);
    known.Clear();
  }
  known.set_env_steps(std::max(known.env_steps(), now.env_steps()));
  known.set_inserted(std::max(known.inserted(), now.inserted()));
  known.set_sampled(std::max(known.sampled(), now.sampled()));
  known.set_preloaded(std::max(known.preloaded(), now.preloaded()));
  if (lane.up || lane.ending) return;
  lane.up = true;
  lane.tried = true;
  lane.backoff.Reset();
  timer_.Signal();  // to poll
}

absl::Status ReplayClient::Impl::CheckReply(const proto::SampleReply& reply, int64_t asked) const {
  const int64_t received = reply.row_ids_size();
  const bool are_numbers =
      reply.mass() >= 0 && std::isfinite(reply.mass()) &&
      std::all_of(reply.probabilities().begin(), reply.probabilities().end(),
                  [](float probability) { return probability >= 0 && std::isfinite(probability); });
  const bool have_size =  // encoded windows are held against it when they are decoded
      codec_ != nullptr ? (received > 0) == !reply.windows().empty()
                        : static_cast<int64_t>(reply.windows().size()) == received * window_bytes_;
  if (!are_numbers || received > asked || reply.probabilities_size() != received || !have_size) {
    return absl::InternalError(
        absl::StrCat("answer of ", reply.windows().size(), " bytes, ", received, " ids, ",
                     reply.probabilities_size(), " probabilities, mass ", reply.mass(),
                     " to a request for ", asked, " windows of ", window_bytes_, " bytes"));
  }
  return absl::OkStatus();
}

absl::Status ReplayClient::Impl::CopyWindows(const proto::SampleReply& reply, const Piece& piece,
                                             size_t shard) const {
  BatchBuffer& buffer = *piece.batch->windows.buffer;
  uint8_t* const to = buffer.data + piece.first * window_bytes_;
  if (codec_ == nullptr) {
    std::memcpy(to, reply.windows().data(), reply.windows().size());
  } else {
    absl::Status decoded = codec_->Decode(reply.windows(), reply.row_ids_size() * window_rows_, to);
    if (!decoded.ok()) return decoded;
  }
  std::copy(reply.row_ids().begin(), reply.row_ids().end(), buffer.row_ids.begin() + piece.first);
  std::fill_n(buffer.shards.begin() + piece.first, reply.row_ids_size(),
              static_cast<int32_t>(shard));
  std::transform(reply.probabilities().begin(), reply.probabilities().end(),
                 buffer.probabilities.begin() + piece.first, [&piece](float probability) {
                   return static_cast<float>(probability * piece.share);
                 });
  return absl::OkStatus();
}

void ReplayClient::Impl::OnWindows(size_t shard, const proto::SampleReply& reply) {
  Piece piece;
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    Lane& lane = lanes_[shard];
    status = lane.asked.empty() ? absl::InternalError("an answer to no request")
                                : CheckReply(reply, lane.asked.front().count);
    if (!status.ok()) {
      lane.fault = status;
      EndSession(lane);
      return;
    }
    piece = std::move(lane.asked.front());
    lane.asked.pop_front();
  }
  // No other piece touches these windows, and the batch waits for them.
  if (reply.row_ids_size() > 0) status = CopyWindows(reply, piece, shard);
  absl::MutexLock lock(&mu_);
  Lane& lane = lanes_[shard];
  lane.num_asked -= piece.count;
  if (!status.ok()) {
    Finish(piece, 0);
    lane.fault = status;
    EndSession(lane);
    return;
  }
  Learn(lane, reply);
  if (piece.tells_draws) lane.draws_told = false;
  Finish(piece, reply.row_ids_size());
  Advance();
  SendNext(shard);
}

void ReplayClient::Impl::OnPolled(size_t shard, const proto::SampleReply& reply) {
  absl::MutexLock lock(&mu_);
  Lane& lane = lanes_[shard];
  lane.poll_open = false;
  if (absl::Status status = CheckReply(reply, 0); !status.ok()) {
    lane.fault = status;
    EndSession(lane);
    return;
  }
  if (!lane.up) return;  // left over from a session that is ending
  Learn(lane, reply);
  Advance();
  const absl::Time now = absl::Now();
  if (starved_) {
    Poll(shard, now);
  } else {
    timer_.Signal();  // to poll after the interval
  }
}

void ReplayClient::Impl::OnWritten(size_t shard, bool polls) {
  absl::MutexLock lock(&mu_);
  Lane& lane = lanes_[shard];
  Wire& wire = polls ? lane.polls : lane.windows;
  wire.writing = false;
  if (polls) {
    timer_.Signal();
  } else if (lane.up) {
    SendNext(shard);
  } else if (wire.usable && !std::exchange(lane.greeted, true)) {
    wire.request.Clear();
    FillTotals(shard, wire.request);
    wire.writing = true;
    wire.call->Write(&wire.request);
  }
}

void ReplayClient::Impl::OnBroken(size_t shard, bool polls) {
  absl::MutexLock lock(&mu_);
  Lane& lane = lanes_[shard];
  (polls ? lane.polls : lane.windows).usable = false;
  lane.up = false;
  lane.draws_told = false;
  DropPriorities(lane);
  EndSession(lane);
  if (polls) return;
  // No answer will come any more.
  for (std::deque<Piece>* pieces : {&lane.asked, &lane.to_send}) {
    for (const Piece& piece : *pieces) {
      lane.num_asked -= piece.count;
      Finish(piece, 0);
    }
    pieces->clear();
  }
  Advance();
}

void ReplayClient::Impl::OnDone(size_t shard, bool polls, const grpc::Status& status) {
  absl::MutexLock lock(&mu_);
  Lane& lane = lanes_[shard];
  (polls ? lane.polls : lane.windows).call.reset();
  const absl::Status end = FromGrpc(status, "sampling from", options_.directory->Name(shard));
  // The call that broke first tells more than the one that was cancelled for it.
  if (end.code() != absl::StatusCode::kCancelled) lane.last_break = end;
  if (!lane.fault.ok()) lane.last_break = lane.fault;
  if (IsPermanent(end) && permanent_.ok()) permanent_ = end;
  lane.link.NoteEnd(end);
  if (lane.windows.call == nullptr && lane.polls.call == nullptr) {
    ++stats_.reconnects;
    lane.tried = true;
    lane.next_attempt = absl::Now() + lane.backoff.Next();
    timer_.Signal();
    Advance();
  }
}

void ReplayClient::Impl::RunTimers() {
  absl::MutexLock lock(&mu_);
  while (!stopped_) {
    const absl::Time next = HandleTimers(absl::Now());
    timer_.WaitWithDeadline(&mu_, next);
  }
}

// Does what is due at `now`; returns when to look again.
absl::Time ReplayClient::Impl::HandleTimers(absl::Time now) {
  absl::Time next = absl::InfiniteFuture();
  if (pool_ == nullptr || !permanent_.ok()) return next;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    if (lane.windows.call == nullptr && lane.polls.call == nullptr) {
      if (now >= lane.next_attempt) {
        StartSession(i);
      } else {
        next = std::min(next, lane.next_attempt);
      }
    }
    if (now >= lane.priorities_due) {
      lane.priorities_go_alone = true;
      SendNext(i);
    } else {
      next = std::min(next, lane.priorities_due);
    }
    GiveUpSilent(i, now);
    if (lane.up && (starved_ || now >= lane.next_poll)) Poll(i, now);
    if (lane.up && lane.poll_open && !lane.ending) next = std::min(next, lane.answer_due);
    const bool may_poll = lane.up && !lane.poll_open && !lane.polls.writing;
    if (may_poll && lane.polls.usable) next = std::min(next, lane.next_poll);
  }
  return next;
}

}  // namespace troupe
