#include "tests/fuzz/forged_log.h"

#include <functional>
#include <utility>

#include "common/crc32c.h"

namespace troupe {
namespace {

std::string RowsOf(uint64_t stream, uint64_t first, uint64_t count, uint64_t stride) {
  std::string rows;
  for (uint64_t number = first; number < first + count; ++number) {
    const Row row = RowOf(stream, number);
    const size_t begin = rows.size();
    rows.append(reinterpret_cast<const char*>(&row), std::min<size_t>(sizeof(row), stride));
    rows.resize(begin + stride, '\0');
  }
  return rows;
}

// Makes the checks of one block, or of the counts, or of the file's header say what is there.
void FitChecks(uint64_t which, const LogGeometry& geometry, File* file) {
  uint8_t* bytes = file->data();
  if (which < kBlocks) {
    auto* header = reinterpret_cast<BlockHeader*>(bytes + geometry.headers_offset) + which;
    const uint32_t first_slot = header->first_row % kRowsPerBlock;
    const uint8_t* rows =
        bytes + geometry.rows_offset + (which * kRowsPerBlock + first_slot) * kStride;
    for (CommitSlot& slot : header->slots) {
      const uint32_t count = std::min(slot.row_count, kRowsPerBlock - first_slot);
      slot.rows_crc32c = Crc32c(0, rows, count * kStride);
      slot.check = CommitCheck(*header, slot);
    }
  } else if (which == kBlocks) {
    auto* slots = reinterpret_cast<LogCountsSlot*>(bytes + geometry.counts_offset);
    for (LogCountsSlot& slot : {std::ref(slots[0]), std::ref(slots[1])}) {
      slot = MakeCountsSlot(slot.counts, slot.generation, slot.row_count, slot.sequence);
    }
  } else {
    auto* header = reinterpret_cast<FileHeader*>(bytes);
    const uint64_t metadata_bytes =
        std::min<uint64_t>(header->metadata_bytes, geometry.counts_offset - sizeof(*header));
    header->check = 0;
    header->check = Crc32c(0, bytes, sizeof(*header) + metadata_bytes);
  }
}

}  // namespace

Row RowOf(uint64_t stream, uint64_t number) {
  const uint64_t mixed = (stream + 3 * number + 1) * 0x9e3779b97f4a7c15;
  return {{mixed, number % 37 == 36 ? kTerminated : 0u, 1}, stream, number};
}

void Append(RowLog* log, uint64_t stream, uint64_t count) {
  const std::string bytes =
      RowsOf(stream, log->HeldRows(stream), count, log->metadata().stride_bytes);
  for (absl::string_view rows = bytes; !rows.empty();) {
    if (const uint32_t victim = log->Victim(stream); victim != kNoBlock) log->Evict(victim);
    const StagedRows staged = log->Stage(stream, rows);
    Require(staged.count > 0 && staged.block < log->num_blocks(), "nothing was staged");
    LogCounts counts = log->counts();
    counts.rows_appended += staged.count;
    log->Commit(staged, counts);
    rows.remove_prefix(staged.count * log->stride_bytes());
  }
}

std::unique_ptr<RowLog> MustRecover(const std::string& path) {
  absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Recover(path);
  Require(log.ok(), log.status());
  return *std::move(log);
}

History MakeHistory(const std::string& path, absl::Span<const uint64_t> streams) {
  LogMetadata metadata;
  metadata.run = "run";
  metadata.table = "replay";
  metadata.layout = "layout";
  metadata.stride_bytes = kStride;
  metadata.num_blocks = kBlocks;
  metadata.has_priorities = true;
  History history{.geometry = ComputeGeometry(metadata).value()};
  const std::unique_ptr<RowLog> log = RowLog::Create(path, metadata).value();
  for (uint64_t step = 0; step < 24; ++step) {
    history.ages.push_back(MemoryFile(path));
    Append(log.get(), streams[step % streams.size()], 5 + 17 * (step % 5));
  }
  history.ages.push_back(MemoryFile(path));
  for (uint32_t block = 0; block < kBlocks; ++block) {
    history.row_counts[block] = log->row_count(block);
  }
  return history;
}

uint64_t TakeOffset(Numbers* numbers, const LogGeometry& geometry) {
  const std::pair<uint64_t, uint64_t> parts[] = {
      {0, 128},
      {geometry.counts_offset, 2 * sizeof(LogCountsSlot)},
      {geometry.headers_offset, kBlocks * sizeof(BlockHeader)},
      {geometry.times_offset, kBlocks * kRowsPerBlock},
      {geometry.priorities_offset, kBlocks * kRowsPerBlock * sizeof(float)},
      {geometry.rows_offset, kBlocks * kRowsPerBlock * kStride}};
  const auto& [begin, size] = parts[numbers->Take(1) % std::size(parts)];
  return begin + numbers->Take(2) % size;
}

void Forge(const LogGeometry& geometry, Numbers* numbers, File* file) {
  while (!numbers->empty()) {
    const uint64_t what = numbers->Take(1);
    if (what < 32) {
      FitChecks(what % (kBlocks + 2), geometry, file);
      continue;
    }
    const uint64_t offset = TakeOffset(numbers, geometry);
    const size_t size = std::min<size_t>(1 << what % 4, file->size() - offset);
    const uint64_t value = numbers->Take(size);
    std::memcpy(file->data() + offset, &value, size);
  }
}

}  // namespace troupe
