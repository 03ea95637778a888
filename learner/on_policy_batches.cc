#include "learner/on_policy_batches.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/layout.h"
#include "spdlog/spdlog.h"

namespace troupe {
namespace {

constexpr absl::Duration kBetweenLooks = absl::Milliseconds(50);

bool IsTooOld(const PolicyVersion& row, const PolicyVersion& newest, int64_t max_lag) {
  if (row.epoch != newest.epoch || row.counter > newest.counter) return true;
  return newest.counter - row.counter > static_cast<uint64_t>(max_lag);
}

}  // namespace

OnPolicyBatches::OnPolicyBatches(ReplayClient& replay, const Options& options)
    : replay_(replay),
      options_(options),
      pool_(std::make_shared<BatchPool>(options.batch_windows, options.window_length,
                                        options.stride_bytes)) {}

int64_t OnPolicyBatches::StepsIfTooOld(const WindowBatch& window,
                                       const PolicyVersion& version) const {
  int64_t steps = 0;
  bool too_old = false;
  for (int64_t t = options_.lead_rows; t < options_.window_length; ++t) {
    const RowHeader header = ReadRowHeader(window.row(0, t));
    if (IsFinal(header.flags)) continue;
    ++steps;
    too_old |=
        IsTooOld(PolicyVersion::Unpack(header.policy_version), version, options_.max_policy_lag);
  }
  return too_old ? steps : 0;
}

absl::StatusOr<WindowBatch> OnPolicyBatches::NextWindow(const PolicyVersion& version,
                                                        absl::Time deadline) {
  while (true) {
    absl::StatusOr<WindowBatch> window =
        replay_.NextBatch(std::min(deadline, absl::Now() + kBetweenLooks));
    if (window.ok() || !absl::IsDeadlineExceeded(window.status())) return window;
    if (options_.max_policy_lag == 0) NoteStall(version);
    if (absl::Now() >= deadline) return window;
  }
}

void OnPolicyBatches::NoteStall(const PolicyVersion& version) {
  const uint64_t steps = replay_.counts().env_steps;
  const absl::Time now = absl::Now();
  if (steps != flowing_steps_ || flowing_since_ == absl::InfinitePast()) {
    flowing_steps_ = steps;
    flowing_since_ = now;
  }
  if (now - flowing_since_ < options_.stall) return;
  flowing_since_ = now;  // until the next request
  ++stalls_;
  if (round_windows_ == 0) round_windows_ = num_gathered_;
  const int64_t writers = replay_.RequestUnrolls(version.Packed());
  if (writers == 0 || num_gathered_ == 0) return;
  spdlog::info("no rows come, and the batch has {} of {} windows: asked {} writers for more",
               num_gathered_, options_.batch_windows, writers);
}

absl::StatusOr<WindowBatch> OnPolicyBatches::Next(const PolicyVersion& version,
                                                  absl::Time deadline) {
  // Windows gathered for another version may be too old by now; a learner asks for one version
  // until it has its batch, so there are none.
  if (gathered_for_ != version.Packed()) num_gathered_ = 0;
  gathered_for_ = version.Packed();
  if (!gathered_.has_value()) gathered_ = pool_->Take();
  while (num_gathered_ < options_.batch_windows) {
    const absl::StatusOr<WindowBatch> window = NextWindow(version, deadline);
    if (!window.ok()) return window.status();
    const int64_t too_old = StepsIfTooOld(*window, version);
    steps_too_old_ += too_old;
    if (too_old > 0) {
      if (steps_too_old_ == too_old) {
        spdlog::warn(
            "a window of {} steps by an older policy is left out; if that goes on, there "
            "are more environments than batch_windows {}",
            too_old, options_.batch_windows);
      }
      round_windows_ = 0;  // there are more environments than was thought
      continue;
    }
    std::memcpy(gathered_->buffer->data + num_gathered_ * gathered_->window_bytes(), window->data(),
                window->window_bytes());
    ++num_gathered_;
    const bool round_ends = round_windows_ > 0 && num_gathered_ % round_windows_ == 0;
    if (round_ends && num_gathered_ < options_.batch_windows) {
      replay_.RequestUnrolls(version.Packed());
    }
  }
  num_gathered_ = 0;
  WindowBatch batch = *std::move(gathered_);
  gathered_.reset();
  return batch;
}

}  // namespace troupe
