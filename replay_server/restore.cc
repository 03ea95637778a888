#include "replay_server/restore.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "replay_server/mapped_file.h"
#include "replay_server/new_directory.h"
#include "replay_server/row_log.h"
#include "replay_server/snapshot_store.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr char kLogSuffix[] = ".rows";

// A directory that is read.
struct Source {
  std::string directory;
  DirectoryLock lock;
};

using Logs = std::vector<std::unique_ptr<RowLog>>;  // by source; null: it lacks the table

// One block of a source on its way.
struct BlockPlace {
  RowLog* log = nullptr;
  uint32_t block = 0;
  double age = 0;  // 0: the oldest of its source; 1: the newest
};

struct StreamBlocks {
  uint64_t stream = 0;
  uint64_t rows = 0;
  std::vector<BlockPlace> blocks;  // oldest first
};

// What goes into one new log.
struct Share {
  uint64_t rows = 0;
  uint64_t streams = 0;
  std::vector<BlockPlace> blocks;
  LogCounts counts;
};

absl::StatusOr<std::vector<Source>> LockSources(absl::Span<const std::string> from) {
  std::vector<Source> sources;
  for (const std::string& directory : from) {
    std::error_code error;
    if (!fs::is_directory(directory, error)) {
      return absl::NotFoundError(absl::StrCat("there is no data directory ", directory));
    }
    absl::StatusOr<DirectoryLock> lock = DirectoryLock::Acquire(directory);
    if (!lock.ok()) return lock.status();
    sources.push_back({directory, *std::move(lock)});
  }
  return sources;
}

std::set<std::string> TableNames(absl::Span<const Source> sources) {
  std::set<std::string> names;
  for (const Source& source : sources) {
    for (const fs::directory_entry& entry : fs::directory_iterator(source.directory)) {
      if (entry.path().extension() == kLogSuffix) names.insert(entry.path().stem().string());
    }
  }
  return names;
}

std::string LogPath(const std::string& directory, const std::string& table) {
  return absl::StrCat(directory, "/", table, kLogSuffix);
}

// Empty: they go together.
std::string Difference(const LogMetadata& a, const LogMetadata& b) {
  if (a.run != b.run) return absl::StrCat("runs '", a.run, "' and '", b.run, "'");
  if (a.table != b.table) return absl::StrCat("tables '", a.table, "' and '", b.table, "'");
  if (a.layout != b.layout || a.stride_bytes != b.stride_bytes) return "two layouts";
  if (a.num_blocks != b.num_blocks) {
    return absl::StrCat("capacities of ", a.num_blocks * kRowsPerBlock, " and ",
                        b.num_blocks * kRowsPerBlock, " rows");
  }
  return a.has_priorities == b.has_priorities ? "" : "selectors with and without priorities";
}

absl::StatusOr<Logs> ReadLogs(absl::Span<const Source> sources, const std::string& table) {
  Logs logs;
  const LogMetadata* first = nullptr;
  for (const Source& source : sources) {
    const std::string path = LogPath(source.directory, table);
    absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::RecoverPrivately(path);
    if (absl::IsNotFound(log.status())) {
      logs.push_back(nullptr);
      continue;
    }
    if (!log.ok()) return log.status();
    if (first == nullptr) first = &(*log)->metadata();
    if (std::string difference = Difference(*first, (*log)->metadata()); !difference.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, " and the logs before it are of ", difference));
    }
    logs.push_back(*std::move(log));
  }
  return logs;
}

// Streams, those with the most blocks first.
absl::StatusOr<std::vector<StreamBlocks>> FindStreams(const Logs& logs) {
  std::map<uint64_t, StreamBlocks> streams;
  for (const std::unique_ptr<RowLog>& log : logs) {
    if (log == nullptr) continue;
    const std::vector<uint32_t> blocks = log->BlocksByAge();
    for (size_t i = 0; i < blocks.size(); ++i) {
      StreamBlocks& stream = streams[log->stream(blocks[i])];
      if (!stream.blocks.empty() && stream.blocks[0].log != log.get()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "two sources hold rows of stream ", absl::Hex(log->stream(blocks[i]), absl::kZeroPad16),
            ": are they of different times?"));
      }
      stream.stream = log->stream(blocks[i]);
      stream.rows += log->row_count(blocks[i]);
      stream.blocks.push_back(
          {log.get(), blocks[i], static_cast<double>(i + 1) / static_cast<double>(blocks.size())});
    }
  }
  std::vector<StreamBlocks> result;
  result.reserve(streams.size());
  for (auto& [id, stream] : streams) result.push_back(std::move(stream));
  std::stable_sort(result.begin(), result.end(),
                   [](const auto& a, const auto& b) { return a.blocks.size() > b.blocks.size(); });
  return result;
}

// Each stream goes to the share with the fewest rows of those with room for it.
absl::StatusOr<std::vector<Share>> DealOut(std::vector<StreamBlocks> streams, size_t num_shares,
                                           uint64_t capacity_blocks) {
  std::vector<Share> shares(num_shares);
  uint64_t rows = 0;
  uint64_t blocks = 0;
  for (const StreamBlocks& stream : streams) {
    rows += stream.rows;
    blocks += stream.blocks.size();
  }
  for (StreamBlocks& stream : streams) {
    Share* emptiest = nullptr;
    for (Share& share : shares) {
      if (share.blocks.size() + stream.blocks.size() > capacity_blocks) continue;
      if (emptiest == nullptr || share.rows < emptiest->rows) emptiest = &share;
    }
    if (emptiest == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat(
          rows, " rows of ", streams.size(), " streams in ", blocks, " blocks do not fit into ",
          num_shares, " shards of ", capacity_blocks, " blocks (", capacity_blocks * kRowsPerBlock,
          " rows) with whole streams: restore into more shards"));
    }
    emptiest->rows += stream.rows;
    emptiest->streams++;
    std::move(stream.blocks.begin(), stream.blocks.end(), std::back_inserter(emptiest->blocks));
  }
  for (Share& share : shares) {  // blocks of one source stay in their order, so streams do
    std::stable_sort(share.blocks.begin(), share.blocks.end(),
                     [](const BlockPlace& a, const BlockPlace& b) { return a.age < b.age; });
  }
  return shares;
}

// The counts of a log; of one that has lost them, what its rows say.
LogCounts CountsOf(const RowLog& log) {
  LogCounts counts = log.counts();
  if (!log.counts_lost()) return counts;
  counts.rows_appended = counts.env_steps = log.rows();
  for (const uint32_t block : log.BlocksByAge()) {
    counts.env_steps -= std::popcount(log.finals(block));
  }
  return counts;
}

constexpr uint64_t LogCounts::*kCounts[] = {&LogCounts::env_steps,      &LogCounts::inserted,
                                            &LogCounts::sampled,        &LogCounts::rows_appended,
                                            &LogCounts::rows_duplicate, &LogCounts::preloaded};

// Each share gets a part of every count by its rows, at least rows_appended of its own rows; the
// sums stay.
void DealOutCounts(const Logs& logs, std::vector<Share>* shares) {
  uint64_t all_rows = 0;
  for (const Share& share : *shares) all_rows += share.rows;
  for (uint64_t LogCounts::*count : kCounts) {
    uint64_t left = 0;
    for (const std::unique_ptr<RowLog>& log : logs) {
      if (log != nullptr) left += CountsOf(*log).*count;
    }
    uint64_t rows_left = all_rows;
    for (size_t i = 0; i < shares->size(); ++i) {
      Share& share = (*shares)[i];
      const bool last = i + 1 == shares->size();
      const uint64_t part =
          last ? left
               : (rows_left == 0 ? 0
                                 : static_cast<uint64_t>(static_cast<unsigned __int128>(left) *
                                                         share.rows / rows_left));
      share.counts.*count = part;
      left -= part;
      rows_left -= share.rows;
    }
  }
}

// A new log, written block after block.
class LogWriter final {
 public:
  static absl::StatusOr<LogWriter> Make(const std::string& path, const LogMetadata& metadata) {
    absl::StatusOr<LogGeometry> geometry = ComputeGeometry(metadata);
    if (!geometry.ok()) return geometry.status();
    absl::StatusOr<MappedFile> file =
        MappedFile::CreateSparse(path, geometry->file_bytes, AllocatedBytes(*geometry));
    if (!file.ok()) return file.status();
    const std::string header = EncodeFileHeader(metadata);
    std::memcpy(file->data(), header.data(), header.size());
    return LogWriter(*std::move(file), *geometry, metadata.has_priorities);
  }

  // REQUIRES: fewer than num_blocks were added.  RESOURCE_EXHAUSTED: no space for encoded rows.
  absl::Status Add(RowLog* log, uint32_t block);
  absl::Status Finish(const LogCounts& counts) {
    const LogCountsSlot slot = MakeCountsSlot(counts, 0, 0, 1);
    auto* slots = reinterpret_cast<LogCountsSlot*>(file_.data() + geometry_.counts_offset);
    slots[slot.sequence % 2] = slot;
    return file_.Sync();
  }

 private:
  LogWriter(MappedFile file, const LogGeometry& geometry, bool has_priorities)
      : file_(std::move(file)), geometry_(geometry), has_priorities_(has_priorities) {}

  MappedFile file_;
  LogGeometry geometry_;
  bool has_priorities_;
  uint64_t blocks_ = 0;
};

absl::Status LogWriter::Add(RowLog* log, uint32_t block) {
  BlockHeader header = {};
  header.stream = log->stream(block);
  header.first_row = log->first_row(block);
  header.generation = blocks_ + 1;
  const auto first_slot = static_cast<uint32_t>(header.first_row % kRowsPerBlock);
  CommitSlot& slot = header.slots[0];
  slot.row_count = log->row_count(block);
  const size_t rows_bytes = log->RowsBytes(block, first_slot, slot.row_count);
  const uint8_t* rows = log->row(block, first_slot);
  slot.rows_crc32c = Crc32c(0, rows, rows_bytes);
  slot.check = CommitCheck(header, slot);
  const uint64_t first = blocks_ * kRowsPerBlock;
  uint8_t* file = file_.data();
  uint64_t rows_offset = geometry_.block_offset(blocks_);
  if (geometry_.rows.all_alike()) {
    rows_offset += first_slot * geometry_.stride_bytes;
  } else if (absl::Status status = file_.Allocate(rows_offset, rows_bytes); !status.ok()) {
    return status;
  }
  std::memcpy(file + rows_offset, rows, rows_bytes);
  std::memcpy(file + geometry_.times_offset + first, &log->times_sampled(block, 0), kRowsPerBlock);
  if (has_priorities_) {
    std::memcpy(file + geometry_.priorities_offset + first * sizeof(float),
                &log->priority(block, 0), kRowsPerBlock * sizeof(float));
  }
  std::memcpy(file + geometry_.headers_offset + blocks_ * sizeof(header), &header, sizeof(header));
  ++blocks_;
  return absl::OkStatus();
}

absl::StatusOr<RestoredTable> RestoreTable(const std::string& name, const Logs& logs,
                                           absl::Span<const NewDirectory> targets) {
  const auto any = std::find_if(logs.begin(), logs.end(), [](const auto& log) { return !!log; });
  const LogMetadata& metadata = (*any)->metadata();
  absl::StatusOr<std::vector<StreamBlocks>> streams = FindStreams(logs);
  if (!streams.ok()) return streams.status();
  absl::StatusOr<std::vector<Share>> shares =
      DealOut(*std::move(streams), targets.size(), metadata.num_blocks);
  if (!shares.ok()) return shares.status();
  DealOutCounts(logs, &*shares);
  RestoredTable restored = {.name = name};
  for (const std::unique_ptr<RowLog>& log : logs) {
    if (log == nullptr) continue;
    restored.dropped_blocks += log->corrupt_blocks();
    restored.losses.insert(restored.losses.end(), log->losses().begin(), log->losses().end());
  }
  for (size_t i = 0; i < targets.size(); ++i) {
    const Share& share = (*shares)[i];
    absl::StatusOr<LogWriter> writer =
        LogWriter::Make(targets[i].File(absl::StrCat(name, kLogSuffix)), metadata);
    if (!writer.ok()) return writer.status();
    for (const BlockPlace& place : share.blocks) {
      if (absl::Status status = writer->Add(place.log, place.block); !status.ok()) return status;
    }
    if (absl::Status status = writer->Finish(share.counts); !status.ok()) return status;
    restored.shards.push_back({.rows = share.rows, .streams = share.streams});
    restored.shards.back().counts = share.counts;
  }
  return restored;
}

// Null: no source has one that can be used.
SnapshotPtr NewestSnapshot(absl::Span<const Source> sources, std::vector<std::string>* warnings) {
  SnapshotPtr newest;
  for (const Source& source : sources) {
    SnapshotStore store(source.directory + "/snapshot");
    if (absl::Status status = store.Recover(); !status.ok()) {
      warnings->push_back(absl::StrCat("snapshot left out: ", status.message()));
    }
    if (store.newest_version() > (newest == nullptr ? 0 : newest->version)) newest = store.newest();
  }
  return newest;
}

absl::Status RestoreSnapshot(const SnapshotPtr& snapshot, absl::Span<const NewDirectory> targets) {
  if (snapshot == nullptr) return absl::OkStatus();
  for (const NewDirectory& target : targets) {
    SnapshotStore store(target.File("snapshot"));
    if (absl::Status status = store.Publish(*snapshot).status(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// The run of all tables and of the snapshot.
absl::Status CheckRun(const std::string& run, std::string* of_all) {
  if (of_all->empty()) *of_all = run;
  if (run == *of_all) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the sources hold two runs, '", *of_all, "' and '", run, "'"));
}

absl::Status FillTargets(absl::Span<const Source> sources, absl::Span<const NewDirectory> targets,
                         Restored* restored) {
  std::string run;
  for (const std::string& name : TableNames(sources)) {
    absl::StatusOr<Logs> logs = ReadLogs(sources, name);
    if (!logs.ok()) return logs.status();
    for (const std::unique_ptr<RowLog>& log : *logs) {
      if (log == nullptr) continue;
      if (absl::Status status = CheckRun(log->metadata().run, &run); !status.ok()) return status;
    }
    absl::StatusOr<RestoredTable> table = RestoreTable(name, *logs, targets);
    if (!table.ok()) {
      return absl::Status(table.status().code(),
                          absl::StrCat("table '", name, "': ", table.status().message()));
    }
    restored->tables.push_back(*std::move(table));
  }
  const SnapshotPtr snapshot = NewestSnapshot(sources, &restored->warnings);
  if (snapshot != nullptr) {
    if (absl::Status status = CheckRun(snapshot->run, &run); !status.ok()) return status;
    restored->snapshot_version = snapshot->version;
  }
  return RestoreSnapshot(snapshot, targets);
}

}  // namespace

absl::StatusOr<Restored> Restore(absl::Span<const std::string> from,
                                 absl::Span<const std::string> to) {
  absl::StatusOr<std::vector<Source>> sources = LockSources(from);
  if (!sources.ok()) return sources.status();
  std::vector<NewDirectory> targets;
  targets.reserve(to.size());
  for (const std::string& directory : to) {
    absl::StatusOr<NewDirectory> target = NewDirectory::Make(directory);
    if (!target.ok()) return target.status();
    targets.push_back(*std::move(target));
  }
  Restored restored;
  if (absl::Status status = FillTargets(*sources, targets, &restored); !status.ok()) return status;
  for (NewDirectory& target : targets) {
    if (absl::Status status = target.Appear(); !status.ok()) return status;
  }
  for (RestoredTable& table : restored.tables) {
    for (size_t i = 0; i < to.size(); ++i) table.shards[i].directory = to[i];
  }
  return restored;
}

}  // namespace troupe
