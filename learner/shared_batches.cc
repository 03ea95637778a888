#include "learner/shared_batches.h"

#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace troupe {

SharedBatches::SharedBatches(std::unique_ptr<BatchSource> all, RankGroup& ranks,
                             const Options& options)
    : all_(std::move(all)),
      ranks_(ranks),
      share_bytes_(options.batch_windows * options.window_length * options.stride_bytes),
      pool_(std::make_shared<BatchPool>(options.batch_windows, options.window_length,
                                        options.stride_bytes)) {}

absl::StatusOr<WindowBatch> SharedBatches::Next(const PolicyVersion& version, absl::Time deadline) {
  std::string bytes;
  absl::Status missing;
  if (ranks_.rank() == 0) {
    absl::StatusOr<WindowBatch> batch = all_->Next(version, deadline);
    if (!batch.ok() && !absl::IsDeadlineExceeded(batch.status())) return batch;
    missing = batch.status();
    if (batch.ok()) {
      bytes.assign(reinterpret_cast<const char*>(batch->data()),
                   static_cast<size_t>(batch->num_windows * batch->window_bytes()));
    }
  }
  const absl::StatusOr<std::string> first = ranks_.FromFirst(std::move(bytes));
  if (!first.ok()) return first.status();
  if (first->empty()) {
    return missing.ok() ? absl::DeadlineExceededError("rank 0 has no batch yet") : missing;
  }
  if (static_cast<int64_t>(first->size()) != share_bytes_ * ranks_.size()) {
    return absl::InternalError(absl::StrCat("a batch of ", first->size(), " bytes for ",
                                            ranks_.size(), " ranks, each of which takes ",
                                            share_bytes_));
  }
  WindowBatch share = pool_->Take();
  std::memcpy(share.buffer->data, first->data() + ranks_.rank() * share_bytes_, share_bytes_);
  return share;
}

}  // namespace troupe
