// The part of Table that concerns the disk.
#include <utility>

#include "absl/strings/str_cat.h"
#include "replay_server/table.h"

namespace troupe {

// Rows that a process which died has stored may be in memory only.
absl::Status Table::SyncRecovered(RowLog* log) const {
  if (!options_.ack_disk) {
    log->ForgetSynced();
    return absl::OkStatus();
  }
  log->KeepSynced();
  return log->Sync();
}

void Table::Redirty(RowLog* log) {
  if (log->row_sizes().all_alike()) return log->Redirty();
  absl::MutexLock lock(&mu_);  // what is begun meanwhile may give back pages
  log->Redirty();
}

void Table::StartDiskSync() {
  DiskSync::Steps steps;
  steps.begin = [this] {
    absl::MutexLock lock(&mu_);
    if (log_ != nullptr) log_->BeginSync();
  };
  steps.sync = [this](bool after_failure) {
    RowLog* log = nullptr;
    {
      absl::MutexLock lock(&mu_);
      log = log_.get();  // once there, it stays
    }
    if (log == nullptr) return absl::OkStatus();
    if (after_failure) Redirty(log);
    return log->Sync();
  };
  steps.end = [this](bool after_failure) {
    absl::MutexLock lock(&mu_);
    if (log_ == nullptr) return absl::OkStatus();
    if (after_failure && !log_->Intact()) {
      return absl::DataLossError(
          absl::StrCat("rows of ", options_.path, " were lost while its disk was full"));
    }
    log_->EndSync();
    return absl::OkStatus();
  };
  disk_sync_ = std::make_unique<DiskSync>(std::move(steps), options_.disk_sync, scheduler_);
}

}  // namespace troupe
