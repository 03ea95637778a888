#include "tests/bench/replay/sample_client.h"

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

// How long the rate limiter may hold a request back.
constexpr uint32_t kTimeoutMs = 10000;

}  // namespace

SampleClient::SampleClient(std::shared_ptr<grpc::Channel> channel, const SampleLoad& load,
                           const Measuring* measuring)
    : StreamClient(std::move(channel), "/troupe.proto.Replay/Sample", measuring), load_(load) {}

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
  if (!measuring_.load(std::memory_order_relaxed)) return;
  const double due = load_.samples_per_insert *
                     (static_cast<double>(reply_.inserted) - static_cast<double>(load_.min_size));
  const double drift = due - static_cast<double>(reply_.sampled);
  findings_.drift_min = findings_.drift_known ? std::min(findings_.drift_min, drift) : drift;
  findings_.drift_max = findings_.drift_known ? std::max(findings_.drift_max, drift) : drift;
  findings_.drift_known = true;
}

void SampleClient::HandleReceived() {
  if (asked_.empty()) return;
  NoteLatency(measuring_, asked_.front(), &tally_);
  asked_.pop_front();
  tally_.units.fetch_add(static_cast<int64_t>(reply_.row_ids.size()), std::memory_order_relaxed);
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
    asked_.push_back(Clock::now());
  }
  *message = Encode(request);
  return true;
}

}  // namespace troupe
