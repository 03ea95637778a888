#include "replay_server/follower.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

constexpr int kMaxPartialBlocks = 1 << 18;
// Row ids are block * 64 + slot.
constexpr uint64_t kMaxBlock = ~uint64_t{0} / kRowsPerBlock - 1;

uint32_t BlockCapacity(const RowLog& log, uint32_t block) {
  return kRowsPerBlock - static_cast<uint32_t>(log.first_row(block) % kRowsPerBlock);
}

// The oldest block that can be in a log.
uint64_t OldestPossible(const RowLog& log) {
  const uint64_t newest = log.newest_generation();
  return newest > log.num_blocks() ? newest - log.num_blocks() + 1 : 1;
}

// The rows of one reply are at most so many bytes when they are packed.
constexpr uint64_t kMaxPackedBytes = 1 << 20;

// How many more rows fit into the batch, however large they are.
uint64_t Room(const RowLog& log, const FollowBatch& batch) {
  const uint64_t used = batch.rows_bytes + (batch.runs.size() + 1) * kFollowedRunOverheadBytes;
  uint64_t rows = used < kFollowChunkBytes ? (kFollowChunkBytes - used) / log.stride_bytes() : 0;
  if (!log.row_sizes().all_alike()) {
    const uint64_t most = kMaxPackedBytes / log.row_sizes().packed();
    rows = std::min(rows, most - std::min(most, batch.num_rows));
  }
  return batch.runs.empty() ? std::max<uint64_t>(rows, 1) : rows;
}

// How many of the next `most` rows of a block fit into the batch.
uint32_t RowsToTake(const RowLog& log, uint32_t block, uint32_t first_slot, uint32_t most,
                    const FollowBatch& batch) {
  auto count = static_cast<uint32_t>(std::min<uint64_t>(most, Room(log, batch)));
  if (log.row_sizes().all_alike()) return count;
  const uint64_t used = batch.rows_bytes + (batch.runs.size() + 1) * kFollowedRunOverheadBytes;
  while (count < most &&
         (batch.num_rows + count + 1) * log.row_sizes().packed() <= kMaxPackedBytes &&
         used + log.RowsBytes(block, first_slot, count + 1) <= kFollowChunkBytes) {
    ++count;
  }
  return count;
}

}  // namespace

void FollowBatch::Clear() {
  runs.clear();
  pins.Unpin();
  rows_bytes = num_rows = 0;
  rows_missed = 0;
  counts = {};
}

absl::StatusOr<std::unique_ptr<Follower>> Follower::Make(const proto::FollowRequest& request) {
  if (request.next_block() > kMaxBlock) {
    return absl::InvalidArgumentError(
        absl::StrCat("next_block is ", request.next_block(), ", at most ", kMaxBlock));
  }
  if (request.partial_size() > kMaxPartialBlocks) {
    return absl::InvalidArgumentError(
        absl::StrCat(request.partial_size(), " partial blocks, at most ", kMaxPartialBlocks));
  }
  std::unique_ptr<Follower> follower(new Follower(std::max<uint64_t>(request.next_block(), 1)));
  for (const proto::BlockPosition& position : request.partial()) {
    if (position.block() == 0 || position.block() >= follower->next_block_ ||
        position.rows() >= kRowsPerBlock) {
      return absl::InvalidArgumentError(absl::StrCat(
          position.rows(), " rows of block ", position.block(), " are no partial block before ",
          follower->next_block_, ": 0 to ", kRowsPerBlock - 1, " rows of block 1 or later"));
    }
    if (!follower->partial_.try_emplace(position.block(), Partial{position.rows()}).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("partial block ", position.block(), " is there twice"));
    }
  }
  return follower;
}

// A block before next_block_ that is in the log: takes over what the follower claims to have of it.
absl::Status Follower::PlacePartial(const RowLog& log, uint64_t generation, uint32_t block,
                                    absl::flat_hash_map<uint64_t, Partial>* claimed) {
  const uint32_t capacity = BlockCapacity(log, block);
  const uint32_t stored = log.row_count(block);
  const auto claim = claimed->find(generation);
  const uint32_t has = claim == claimed->end() ? capacity : claim->second.rows;
  if (has > stored) {
    return absl::FailedPreconditionError(
        absl::StrCat("the position says that the follower has ", has, " rows of block ", generation,
                     ", which holds ", stored, ": it belongs to another data directory"));
  }
  if (claim != claimed->end()) claimed->erase(claim);
  if (has == capacity) return absl::OkStatus();
  partial_[generation] = {has, has < stored};
  if (has < stored) changed_.push_back(generation);
  return absl::OkStatus();
}

absl::Status Follower::Place(const RowLog* log) {
  const uint64_t newest = log == nullptr ? 0 : log->newest_generation();
  if (next_block_ > newest + 1) {
    return absl::FailedPreconditionError(
        absl::StrCat("the position goes on with block ", next_block_, ", and the newest here is ",
                     newest, ": it belongs to another data directory"));
  }
  if (log == nullptr) return absl::OkStatus();
  const bool from_the_first = next_block_ == 1;
  const uint64_t evicted =
      log->counts().rows_appended - std::min(log->rows(), log->counts().rows_appended);
  const uint64_t oldest = OldestPossible(*log);
  absl::flat_hash_map<uint64_t, Partial> claimed = std::exchange(partial_, {});
  uint64_t gone = next_block_ < oldest ? (oldest - next_block_) * kRowsPerBlock : 0;
  for (uint64_t generation = oldest; generation <= newest; ++generation) {
    const std::optional<uint32_t> block = log->FindBlock(generation * kRowsPerBlock);
    if (generation >= next_block_) {
      gone += block.has_value() ? 0 : kRowsPerBlock;
    } else if (block.has_value()) {
      const absl::Status status = PlacePartial(*log, generation, *block, &claimed);
      if (!status.ok()) return status;
    }
  }
  for (const auto& [generation, partial] : claimed) gone += kRowsPerBlock - partial.rows;
  // What evicted blocks held is no longer known one by one.
  rows_missed_ = from_the_first ? evicted : std::min(evicted, gone);
  next_block_ = std::max(next_block_, oldest);
  return absl::OkStatus();
}

void Follower::NoteCommit(uint64_t block_generation) {
  if (block_generation >= next_block_) return;
  const auto partial = partial_.find(block_generation);
  if (partial == partial_.end() || partial->second.changed) return;
  partial->second.changed = true;
  changed_.push_back(block_generation);
}

void Follower::NoteEviction(const RowLog& log, uint32_t block) {
  const uint64_t generation = log.generation(block);
  if (generation >= next_block_) {
    rows_missed_ += log.row_count(block);
  } else if (const auto partial = partial_.find(generation); partial != partial_.end()) {
    rows_missed_ += log.row_count(block) - partial->second.rows;
    partial_.erase(partial);
  }
}

void Follower::Take(const RowLog& log, std::atomic<uint32_t>* pins, FollowBatch* batch) {
  while (!changed_.empty() && Room(log, *batch) > 0) {
    const uint64_t generation = changed_.front();
    changed_.pop_front();
    if (partial_.contains(generation)) TakeRows(log, generation, pins, batch);
  }
  // Only then are new blocks begun: the one before of the same stream has been sent.
  while (changed_.empty() && next_block_ <= log.newest_generation() && Room(log, *batch) > 0) {
    const uint64_t generation = next_block_++;
    if (log.FindBlock(generation * kRowsPerBlock).has_value()) {
      TakeRows(log, generation, pins, batch);
    }
  }
  batch->rows_missed = rows_missed_;
  batch->counts = log.counts();
}

// REQUIRES: the block is in the log, and there is room for a row.
void Follower::TakeRows(const RowLog& log, uint64_t generation, std::atomic<uint32_t>* pins,
                        FollowBatch* batch) {
  const uint32_t block = *log.FindBlock(generation * kRowsPerBlock);
  Partial& partial = partial_[generation];
  FollowedRun run = {.block = generation, .stream = log.stream(block)};
  run.first_row = log.first_row(block) + partial.rows;
  const auto first_slot = static_cast<uint32_t>(run.first_row % kRowsPerBlock);
  const uint32_t count =
      RowsToTake(log, block, first_slot, log.row_count(block) - partial.rows, *batch);
  run.rows = log.row(block, first_slot);
  run.size_bytes = log.RowsBytes(block, first_slot, count);
  batch->runs.push_back(run);
  batch->rows_bytes += run.size_bytes;
  batch->num_rows += count;
  batch->pins.Pin(&pins[block]);
  partial.rows += count;
  partial.changed = partial.rows < log.row_count(block);
  if (partial.changed) {
    changed_.push_front(generation);
  } else if (partial.rows == BlockCapacity(log, block)) {
    partial_.erase(generation);
  }
}

}  // namespace troupe
