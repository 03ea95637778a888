#include "tests/bench/replay/sample_client.h"

#include <algorithm>
#include <random>
#include <utility>

namespace troupe {
namespace {

// How long the rate limiter may hold a request back.
constexpr uint32_t kTimeoutMs = 10000;

// A prime, so that a batch never meets the same ones again.
constexpr size_t kNumPriorities = 4093;

}  // namespace

void SampleFindings::Add(const SampleFindings& other) {
  wrong_windows += other.wrong_windows;
  wrong_replies += other.wrong_replies;
  empty_replies += other.empty_replies;
  if (!other.drift_known) return;
  drift_min = drift_known ? std::min(drift_min, other.drift_min) : other.drift_min;
  drift_max = drift_known ? std::max(drift_max, other.drift_max) : other.drift_max;
  drift_known = true;
}

SampleClient::SampleClient(std::shared_ptr<grpc::Channel> channel, const SampleLoad& load,
                           const Measuring* measuring)
    : StreamClient(std::move(channel), "/troupe.proto.Replay/Sample", measuring), load_(load) {
  std::mt19937_64 random(1);
  std::exponential_distribution<float> priority;
  priorities_.resize(kNumPriorities);
  std::generate(priorities_.begin(), priorities_.end(), [&] { return priority(random); });
}

void SampleClient::Receive(const grpc::ByteBuffer& message) {
  if (!DecodeWindows(message, &reply_)) {
    ++findings_.wrong_replies;
    return;
  }
  const size_t window_bytes = load_.patterns->layout.stride_bytes() * load_.window_length;
  const size_t windows = reply_.windows.size() / window_bytes;
  findings_.wrong_windows +=
      CountWrongWindows(*load_.patterns, reply_.windows, load_.window_length);
  const bool complete = windows == static_cast<size_t>(load_.batch) || windows == 0;
  if (!complete || reply_.row_ids.size() != windows || reply_.probabilities.size() != windows) {
    ++findings_.wrong_replies;
  }
  if (windows == 0) ++findings_.empty_replies;
  NoteDrift();
}

void SampleClient::NoteDrift() {
  if (load_.samples_per_insert <= 0 || !measuring_.load(std::memory_order_relaxed)) return;
  const double due = load_.samples_per_insert *
                     (static_cast<double>(reply_.inserted) - static_cast<double>(load_.min_size));
  const double drift = due - static_cast<double>(reply_.sampled);
  findings_.Add({.drift_min = drift, .drift_max = drift, .drift_known = true});
}

void SampleClient::HandleReceived() {
  if (asked_.empty()) return;
  NoteLatency(measuring_, asked_.front(), &tally_);
  asked_.pop_front();
  tally_.units.fetch_add(static_cast<int64_t>(reply_.row_ids.size()), std::memory_order_relaxed);
  if (!load_.update_priorities) return;
  to_update_.insert(to_update_.end(), reply_.row_ids.begin(), reply_.row_ids.end());
}

void SampleClient::AddPriorities(proto::PriorityUpdates* updates) {
  updates->mutable_row_ids()->Add(to_update_.begin(), to_update_.end());
  updates->mutable_priorities()->Reserve(static_cast<int>(to_update_.size()));
  for (size_t i = 0; i < to_update_.size(); ++i) {
    updates->add_priorities(priorities_[(updated_ + i) % kNumPriorities]);
  }
  updated_ += to_update_.size();
  to_update_.clear();
}

bool SampleClient::NextMessage(grpc::ByteBuffer* message) {
  proto::SampleRequest request;
  if (opening_) {
    opening_ = false;
    request.mutable_open()->set_run(load_.run);
    request.mutable_open()->set_table(load_.table);
  } else {
    if (asked_.size() >= static_cast<size_t>(load_.in_flight)) return false;
    request.set_num_windows(static_cast<uint32_t>(load_.batch));
    request.set_timeout_ms(kTimeoutMs);
    if (!to_update_.empty()) AddPriorities(request.mutable_priorities());
    asked_.push_back(Clock::now());
  }
  *message = Encode(request);
  return true;
}

}  // namespace troupe
