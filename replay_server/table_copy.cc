// The half of Table that a backup sees.
#include "replay_server/table.h"

namespace troupe {

std::optional<LogMetadata> Table::log_metadata() const {
  absl::MutexLock lock(&mu_);
  if (log_ == nullptr) return std::nullopt;
  return log_->metadata();
}

void Table::CopyAllButRows(absl::Span<uint8_t> to) const {
  absl::MutexLock lock(&mu_);
  log_->CopyAllButRows(to);
}

bool Table::PinRows(uint64_t block_generation, uint32_t first_slot, uint32_t count,
                    PinnedRows* rows) {
  absl::MutexLock lock(&mu_);
  const std::optional<uint32_t> block = log_->FindBlock(block_generation * kRowsPerBlock);
  if (!block.has_value()) return false;
  rows->Pin(&pins_[*block]);
  rows->AddRows(log_->row(*block, first_slot), log_->RowsBytes(*block, first_slot, count));
  return true;
}

}  // namespace troupe
