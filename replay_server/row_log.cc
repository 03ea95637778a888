#include "replay_server/row_log.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "common/layout.h"

namespace troupe {
namespace {

// Streams that have no rows left are remembered up to this many beyond the number of blocks.
constexpr uint64_t kMaxStreamsWithoutBlocks = 65536;

// Keeps the compiler from moving stores across it.  That is enough: when a process is killed,
// the stores of a prefix of its instructions are in the page cache, and the kernel adds none.
void OrderStores() { std::atomic_signal_fence(std::memory_order_seq_cst); }

}  // namespace

absl::StatusOr<std::unique_ptr<RowLog>> RowLog::Create(const std::string& path,
                                                       const LogMetadata& metadata, bool synced) {
  absl::StatusOr<LogGeometry> geometry = ComputeGeometry(metadata);
  if (!geometry.ok()) return geometry.status();
  const std::string unfinished = absl::StrCat(path, ".tmp");
  absl::StatusOr<MappedFile> file =
      MappedFile::CreateSparse(unfinished, geometry->file_bytes, AllocatedBytes(*geometry));
  if (!file.ok()) return file.status();
  const std::string header = EncodeFileHeader(metadata);
  std::memcpy(file->data(), header.data(), header.size());
  absl::Status status = synced ? file->Sync() : absl::OkStatus();
  if (status.ok()) status = file->Rename(path);
  if (!status.ok()) {
    unlink(unfinished.c_str());
    return status;
  }
  if (synced) status = SyncDirectory(std::filesystem::absolute(path).parent_path().string());
  if (!status.ok()) {
    unlink(path.c_str());
    return status;
  }
  return std::unique_ptr<RowLog>(new RowLog(*std::move(file), metadata, *geometry));
}

absl::StatusOr<std::unique_ptr<RowLog>> RowLog::Recover(const std::string& path) {
  return RecoverFile(MappedFile::Open(path), path);
}

absl::StatusOr<std::unique_ptr<RowLog>> RowLog::RecoverPrivately(const std::string& path) {
  return RecoverFile(MappedFile::OpenPrivate(path), path);
}

absl::StatusOr<std::unique_ptr<RowLog>> RowLog::RecoverFile(absl::StatusOr<MappedFile> file,
                                                            const std::string& path) {
  if (!file.ok()) return file.status();
  absl::StatusOr<LogMetadata> metadata =
      ParseFileHeader(absl::MakeConstSpan(file->data(), file->size_bytes()), /*may_be_cut=*/true);
  if (!metadata.ok()) {
    return absl::Status(metadata.status().code(),
                        absl::StrCat(path, ": ", metadata.status().message()));
  }
  absl::StatusOr<LogGeometry> geometry = ComputeGeometry(*metadata);
  if (!geometry.ok()) return geometry.status();
  const uint64_t found_bytes = file->size_bytes();
  if (found_bytes < geometry->file_bytes) {
    absl::Status grown = file->Grow(geometry->file_bytes, AllocatedBytes(*geometry));
    if (!grown.ok()) return grown;
  }
  // Holes of a sparse copy.
  absl::Status allocated = file->Allocate(0, AllocatedBytes(*geometry));
  if (!allocated.ok()) return allocated;
  std::unique_ptr<RowLog> log(new RowLog(*std::move(file), *metadata, *geometry));
  if (found_bytes < geometry->file_bytes) {
    log->losses_.push_back(absl::StrCat("the file was cut off: ", found_bytes, " of ",
                                        geometry->file_bytes, " bytes were there"));
  }
  const std::vector<LogCountsSlot> slots(log->counts_slots_, log->counts_slots_ + 2);
  log->RecoverCounts(slots);
  log->RecoverBlocks();
  return log;
}

RowLog::RowLog(MappedFile file, LogMetadata metadata, const LogGeometry& geometry)
    : file_(std::move(file)),
      metadata_(std::move(metadata)),
      geometry_(geometry),
      counts_slots_(reinterpret_cast<LogCountsSlot*>(file_.data() + geometry.counts_offset)),
      synced_(reinterpret_cast<uint64_t*>(counts_slots_ + 2)),
      headers_(reinterpret_cast<BlockHeader*>(file_.data() + geometry.headers_offset)),
      times_(file_.data() + geometry.times_offset),
      priorities_(metadata_.has_priorities
                      ? reinterpret_cast<float*>(file_.data() + geometry.priorities_offset)
                      : nullptr),
      row_bytes_(file_.data() + geometry.rows_offset),
      row_counts_(metadata_.num_blocks, 0),
      finals_(metadata_.num_blocks, 0),
      row_ends_(geometry.rows.all_alike() ? 0 : metadata_.num_blocks * kRowsPerBlock),
      space_(geometry.rows.all_alike() ? 0 : metadata_.num_blocks),
      previous_(metadata_.num_blocks, kNoBlock),
      next_(metadata_.num_blocks, kNoBlock) {}

uint64_t RowLog::HeldRows(uint64_t stream) const {
  const auto found = streams_.find(stream);
  return found == streams_.end() ? 0 : found->second.held;
}

uint64_t RowLog::base_row(uint32_t block) const {
  return headers_[block].first_row / kRowsPerBlock * kRowsPerBlock;
}

uint32_t RowLog::Victim(uint64_t stream) const {
  const auto found = streams_.find(stream);
  const bool has_room = found != streams_.end() && found->second.block != kNoBlock &&
                        found->second.held % kRowsPerBlock != 0;
  if (has_room) return kNoBlock;
  const auto block = static_cast<uint32_t>(newest_generation_ % metadata_.num_blocks);
  return row_counts_[block] > 0 ? block : kNoBlock;
}

uint64_t RowLog::BlocksNeeded(uint64_t stream, uint64_t rows) const {
  const auto found = streams_.find(stream);
  const uint64_t held = found == streams_.end() ? 0 : found->second.held;
  if (rows <= held) return 0;
  const bool has_block = found != streams_.end() && found->second.block != kNoBlock;
  const uint64_t first_block = has_block ? (held + kRowsPerBlock - 1) / kRowsPerBlock  // the next
                                         : held / kRowsPerBlock;
  return (rows + kRowsPerBlock - 1) / kRowsPerBlock - first_block;
}

uint64_t RowLog::EmptyBlocksAhead(uint64_t at_most) const {
  uint64_t empty = 0;
  while (empty < std::min<uint64_t>(at_most, num_blocks()) &&
         row_counts_[(newest_generation_ + empty) % metadata_.num_blocks] == 0) {
    ++empty;
  }
  return empty;
}

std::optional<uint32_t> RowLog::FindBlock(uint64_t row_id) const {
  const uint64_t wanted = row_id / kRowsPerBlock;
  if (wanted == 0) return std::nullopt;
  const auto block = static_cast<uint32_t>((wanted - 1) % metadata_.num_blocks);
  if (row_counts_[block] == 0 || generation(block) != wanted) return std::nullopt;
  return block;
}

void RowLog::Evict(uint32_t block) {
  BlockHeader& header = headers_[block];
  header.generation = kEvicted;  // one store: the block is whole or empty
  OrderStores();
  rows_ -= row_counts_[block];
  rows_evicted_ += row_counts_[block];
  row_counts_[block] = 0;
  if (next_[block] != kNoBlock) previous_[next_[block]] = kNoBlock;
  if (previous_[block] != kNoBlock) next_[previous_[block]] = kNoBlock;
  next_[block] = previous_[block] = kNoBlock;
  const auto found = streams_.find(header.stream);
  if (found == streams_.end()) return;
  found->second.num_blocks--;
  if (found->second.block == block) found->second.block = kNoBlock;
}

void RowLog::OpenBlock(uint64_t stream_id, Stream* stream) {
  const auto block = static_cast<uint32_t>(newest_generation_ % metadata_.num_blocks);
  BlockHeader& header = headers_[block];
  header.generation = kEvicted;
  OrderStores();
  std::fill(std::begin(header.slots), std::end(header.slots), CommitSlot{});
  header.stream = stream_id;
  header.first_row = stream->held;
  header.follows = stream->block != kNoBlock ? 1 : 0;
  finals_[block] = 0;
  std::memset(times_ + uint64_t{block} * kRowsPerBlock, 0, kRowsPerBlock);
  if (priorities_ != nullptr) {
    std::memset(&priority(block, 0), 0, kRowsPerBlock * sizeof(float));
  }
  OrderStores();
  header.generation = ++newest_generation_;
  if (stream->block != kNoBlock) Link(stream->block, block);
  stream->block = block;
  stream->num_blocks++;
  stream->newest = {};
  stream->epochs = {};
}

void RowLog::Link(uint32_t before, uint32_t after) {
  next_[before] = after;
  previous_[after] = before;
}

StagedRows RowLog::Stage(uint64_t stream_id, absl::string_view rows) {
  if (streams_.size() > num_blocks() + kMaxStreamsWithoutBlocks) ForgetStreamsWithoutBlocks();
  Stream& stream = streams_[stream_id];
  if (stream.block == kNoBlock || stream.held % kRowsPerBlock == 0) OpenBlock(stream_id, &stream);
  StagedRows staged = {.stream = stream_id, .block = stream.block};
  staged.first_slot = stream.held % kRowsPerBlock;
  if (!row_ends_.empty()) {
    CopyEncoded(rows, &staged);
    return staged;
  }
  staged.count = static_cast<uint32_t>(
      std::min<uint64_t>(rows.size() / stride_bytes(), kRowsPerBlock - staged.first_slot));
  staged.size_bytes = staged.count * stride_bytes();
  uint8_t* to = const_cast<uint8_t*>(row(staged.block, staged.first_slot));
  std::memcpy(to, rows.data(), staged.size_bytes);
  for (uint32_t i = 0; i < staged.count; ++i) {
    const bool is_final = IsFinal(ReadRowHeader(to + i * stride_bytes()).flags);
    staged.finals |= uint64_t{is_final} << (staged.first_slot + i);
  }
  return staged;
}

// The slot with the fewest rows but for the newest that is safe and the newest that a running sync
// makes safe.
int RowLog::SlotToOverwrite(const BlockHeader& header, const Stream& stream) const {
  const auto newest_until = [&](uint64_t epoch) {
    int newest = -1;
    for (int i = 0; i < kCommitSlots; ++i) {
      if (stream.epochs[i] > epoch) continue;
      if (newest < 0 || header.slots[i].row_count > header.slots[newest].row_count) newest = i;
    }
    return newest;
  };
  const int safe = newest_until(durable_epoch_);
  const int becoming_safe = newest_until(syncing_epoch_);
  int oldest = -1;
  for (int i = 0; i < kCommitSlots; ++i) {
    if (i == safe || i == becoming_safe) continue;
    if (oldest < 0 || header.slots[i].row_count < header.slots[oldest].row_count) oldest = i;
  }
  return oldest;
}

void RowLog::Commit(const StagedRows& staged, const LogCounts& counts) {
  Stream& stream = streams_[staged.stream];
  BlockHeader& header = headers_[staged.block];
  CommitSlot commit = {};
  commit.row_count = stream.newest.row_count + staged.count;
  commit.rows_crc32c =
      Crc32c(stream.newest.rows_crc32c, row(staged.block, staged.first_slot), staged.size_bytes);
  commit.check = CommitCheck(header, commit);
  WriteCounts(counts, header.generation, commit.row_count);
  const int index = SlotToOverwrite(header, stream);
  CommitSlot& slot = header.slots[index];
  slot.check = 0;
  OrderStores();
  slot.row_count = commit.row_count;
  slot.rows_crc32c = commit.rows_crc32c;
  OrderStores();
  slot.check = commit.check;
  OrderStores();
  stream.newest = commit;
  stream.epochs[index] = epoch_;
  stream.held += staged.count;
  finals_[staged.block] |= staged.finals;
  row_counts_[staged.block] = static_cast<uint8_t>(commit.row_count);
  rows_ += staged.count;
}

void RowLog::KeepSynced() {
  for (auto& [id, stream] : streams_) stream.epochs = {};
  syncing_epoch_ = durable_epoch_ = 0;
  *synced_ = EncodeSynced(newest_generation_);
}

void RowLog::Redirty() {
  if (row_ends_.empty()) return file_.Redirty(0, file_.size_bytes());
  file_.Redirty(0, geometry_.rows_offset);
  for (uint32_t block = 0; block < num_blocks(); ++block) {
    const auto first_slot = static_cast<uint32_t>(first_row(block) % kRowsPerBlock);
    file_.Redirty(geometry_.block_offset(block), RowsBytes(block, first_slot, row_counts_[block]));
  }
}

bool RowLog::Intact() const {
  for (uint32_t block = 0; block < num_blocks(); ++block) {
    if (row_counts_[block] == 0) continue;
    const BlockContents contents = VerifyBlock(headers_[block], block, geometry_,
                                               row_bytes_ + block * geometry_.block_bytes());
    if (contents.committed.row_count != row_counts_[block]) return false;
  }
  return true;
}

void RowLog::CommitCounts(const LogCounts& counts) {
  WriteCounts(counts, newest_counts_.generation, newest_counts_.row_count);
}

void RowLog::WriteCounts(const LogCounts& counts, uint64_t generation, uint32_t row_count) {
  newest_counts_ = MakeCountsSlot(counts, generation, row_count, newest_counts_.sequence + 1);
  LogCountsSlot& slot = counts_slots_[newest_counts_.sequence % 2];
  // Written over the older slot: if it is cut short it does not verify, and the other one counts.
  std::memcpy(&slot, &newest_counts_, sizeof(slot));
  OrderStores();
  counts_ = counts;
}

void RowLog::CopyAllButRows(absl::Span<uint8_t> to) const {
  std::memcpy(to.data(), file_.data(), to.size());
}

std::vector<uint32_t> RowLog::BlocksByAge() const {
  std::vector<uint32_t> blocks;
  for (uint32_t block = 0; block < num_blocks(); ++block) {
    if (row_counts_[block] > 0) blocks.push_back(block);
  }
  std::sort(blocks.begin(), blocks.end(),
            [this](uint32_t a, uint32_t b) { return generation(a) < generation(b); });
  return blocks;
}

void RowLog::ForgetStreamsWithoutBlocks() {
  absl::erase_if(streams_, [](const auto& entry) { return entry.second.num_blocks == 0; });
}

}  // namespace troupe
