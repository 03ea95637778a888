#include "tests/fuzz/forged_log.h"

#include <functional>
#include <utility>

#include "common/crc32c.h"
#include "common/row_codec.h"

namespace troupe {
namespace {

constexpr size_t kPadBytes = 40;

// A Row, and bytes that are compressed.
const Layout& EncodedLayout() {
  static const Layout layout = [] {
    proto::Layout proto;
    for (const char* name : {"stream", "number", "pad"}) {
      proto::Column* column = proto.add_columns();
      column->set_name(name);
      column->set_dtype(proto::INT64);
    }
    proto.mutable_columns(2)->set_dtype(proto::UINT8);
    proto.mutable_columns(2)->add_shape(kPadBytes);
    proto.mutable_columns(2)->set_compression(proto::LZ4);
    return *Layout::FromProto(proto);
  }();
  return layout;
}

// Makes the checks of one block, or of the counts, or of the file's header say what is there.
void FitChecks(uint64_t which, const LogGeometry& geometry, File* file) {
  uint8_t* bytes = file->data();
  if (which < kBlocks) {
    auto* header = reinterpret_cast<BlockHeader*>(bytes + geometry.headers_offset) + which;
    const uint32_t first_slot = header->first_row % kRowsPerBlock;
    const uint8_t* place = bytes + geometry.block_offset(which);
    for (CommitSlot& slot : header->slots) {
      const uint32_t count = std::min(slot.row_count, kRowsPerBlock - first_slot);
      const absl::string_view rows =
          StoredRows(geometry, place, header->first_row, count).value_or(absl::string_view());
      slot.rows_crc32c = Crc32c(0, rows.data(), rows.size());
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

std::string BytesOf(const RowLog& log, uint64_t stream, uint64_t number) {
  const Row row = RowOf(stream, number);
  std::string bytes(reinterpret_cast<const char*>(&row), sizeof(row));
  if (log.row_sizes().all_alike()) {
    bytes.resize(log.stride_bytes(), '\0');
    return bytes;
  }
  static const RowCodec codec(EncodedLayout());
  for (size_t i = 0; i < kPadBytes; ++i) {  // every third row's do not become fewer
    bytes += number % 3 == 0 ? static_cast<char>(row.header.policy_version >> i % 57) : 'x';
  }
  std::string encoded;
  codec.Encode(bytes, &encoded);
  return encoded;
}

bool Append(RowLog* log, uint64_t stream, uint64_t count) {
  static const std::string ours = EncodedLayout().proto().SerializeAsString();
  if (!log->row_sizes().all_alike() && log->metadata().layout != ours) return false;
  std::string bytes;
  for (uint64_t i = 0; i < count; ++i) bytes += BytesOf(*log, stream, log->HeldRows(stream) + i);
  for (absl::string_view rows = bytes; !rows.empty();) {
    Require(log->Reserve(stream, rows).ok(), "there is no space");
    if (const uint32_t victim = log->Victim(stream); victim != kNoBlock) log->Evict(victim);
    const StagedRows staged = log->Stage(stream, rows);
    Require(staged.count > 0 && staged.block < log->num_blocks(), "nothing was staged");
    LogCounts counts = log->counts();
    counts.rows_appended += staged.count;
    log->Commit(staged, counts);
    rows.remove_prefix(staged.size_bytes);
  }
  return true;
}

std::unique_ptr<RowLog> MustRecover(const std::string& path) {
  absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Recover(path);
  Require(log.ok(), log.status());
  return *std::move(log);
}

History MakeHistory(const std::string& path, absl::Span<const uint64_t> streams, bool encoded) {
  LogMetadata metadata;
  metadata.run = "run";
  metadata.table = "replay";
  metadata.layout = "layout";
  metadata.stride_bytes = kStride;
  if (encoded) {
    metadata.layout = EncodedLayout().proto().SerializeAsString();
    metadata.stride_bytes = RowSizes(EncodedLayout()).most();
    metadata.has_encoded_rows = true;
  }
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
      {geometry.rows_offset, kBlocks * geometry.block_bytes()}};
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
