// troupe-row-log: says what a row log holds, stream by stream.  Reads only: the log may be in use,
// and is never changed or locked.
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "common/crc32c.h"
#include "replay_server/mapped_file.h"
#include "replay_server/row_log_format.h"

namespace troupe {
namespace {

constexpr char kUsage[] =
    "troupe-row-log FILE\n"
    "Prints one JSON line a stream of the row log FILE, with the CRC-32C of its rows in order,\n"
    "and at last one of totals:\n"
    "  env_steps          rows that are not final\n"
    "  counted_env_steps  what the log's own counts say, evicted rows included\n"
    "  corrupt_blocks     blocks of which something committed does not verify\n"
    "  duplicates         row numbers of a stream that two blocks hold\n"
    "  repeated_rows      rows with the bytes of another row, under whatever number\n"
    "The log may be in use; then it shows some moment, or several.\n";

// A shard may be writing a block while it is read; what is damaged still does not verify later.
constexpr int kReadings = 5;

struct Block {
  BlockHeader header = {};
  uint32_t row_count = 0;
  uint64_t finals = 0;
  absl::string_view rows = {};  // that are stored
};

struct Totals {
  uint64_t streams = 0;
  uint64_t blocks = 0;
  uint64_t rows = 0;
  uint64_t env_steps = 0;
  uint64_t counted_env_steps = 0;
  uint64_t corrupt_blocks = 0;
  uint64_t duplicates = 0;
  uint64_t repeated_rows = 0;
};

// The parts of a row log in memory.
class LogReader final {
 public:
  // `file` outlives the reader and what it returns.
  static absl::StatusOr<LogReader> Make(absl::Span<const uint8_t> file) {
    const absl::StatusOr<LogMetadata> metadata = ParseFileHeader(file);
    if (!metadata.ok()) return metadata.status();
    const absl::StatusOr<LogGeometry> geometry = ComputeGeometry(*metadata);
    if (!geometry.ok()) return geometry.status();
    return LogReader(file.data(), *geometry);
  }

  const RowSizes& row_sizes() const { return geometry_.rows; }

  // The blocks that verify, by stream, each in the order of its rows.
  std::map<uint64_t, std::vector<Block>> ReadBlocks(uint64_t* corrupt_blocks) const {
    std::map<uint64_t, std::vector<Block>> streams;
    for (uint64_t index = 0; index < geometry_.num_blocks; ++index) {
      Block block;
      if (!ReadBlock(index, &block)) ++*corrupt_blocks;
      if (block.row_count > 0) streams[block.header.stream].push_back(block);
    }
    for (auto& [stream, blocks] : streams) {
      std::sort(blocks.begin(), blocks.end(), [](const Block& a, const Block& b) {
        return a.header.first_row < b.header.first_row;
      });
    }
    return streams;
  }

  uint64_t CountedEnvSteps() const {
    LogCountsSlot newest = {};
    for (int i = 0; i < 2; ++i) {
      LogCountsSlot slot;
      std::memcpy(&slot, file_ + geometry_.counts_offset + i * sizeof(slot), sizeof(slot));
      if (CountsSlotVerifies(slot) && slot.sequence >= newest.sequence) newest = slot;
    }
    return newest.counts.env_steps;
  }

 private:
  LogReader(const uint8_t* file, const LogGeometry& geometry) : file_(file), geometry_(geometry) {}

  // False if the block is damaged; an older state of it may be sound nevertheless.
  bool ReadBlock(uint64_t index, Block* block) const {
    const uint8_t* place = file_ + geometry_.block_offset(index);
    BlockContents contents;
    for (int reading = 0; reading < kReadings; ++reading) {
      std::memcpy(&block->header, file_ + geometry_.headers_offset + index * sizeof(BlockHeader),
                  sizeof(BlockHeader));
      contents = VerifyBlock(block->header, index, geometry_, place);
      if (!contents.damaged) break;
    }
    block->row_count = contents.committed.row_count;
    block->finals = contents.finals;
    block->rows = StoredRows(geometry_, place, block->header.first_row, block->row_count)
                      .value_or(absl::string_view());
    return !contents.damaged;
  }

  const uint8_t* file_;
  LogGeometry geometry_;
};

uint64_t EnvSteps(const Block& block) {
  return block.row_count - static_cast<uint64_t>(std::popcount(block.finals));
}

void PrintStream(uint64_t stream, absl::Span<const Block> blocks, Totals* totals) {
  const uint64_t first_row = blocks.front().header.first_row;
  uint64_t next_row = first_row;
  uint64_t rows = 0;
  uint32_t crc = 0;
  bool contiguous = true;
  for (const Block& block : blocks) {
    const uint64_t begin = block.header.first_row;
    const uint64_t end = begin + block.row_count;
    contiguous = contiguous && begin == next_row;
    if (begin < next_row) totals->duplicates += std::min(next_row, end) - begin;
    next_row = std::max(next_row, end);
    crc = Crc32c(crc, block.rows.data(), block.rows.size());
    rows += block.row_count;
    totals->env_steps += EnvSteps(block);
  }
  totals->streams += 1;
  totals->blocks += blocks.size();
  totals->rows += rows;
  std::cout << absl::StreamFormat(
      "{\"stream\":\"%016x\",\"blocks\":%d,\"first_row\":%d,\"rows\":%d,\"contiguous\":%s,"
      "\"crc32c\":\"%08x\"}\n",
      stream, blocks.size(), first_row, rows, contiguous ? "true" : "false", crc);
}

uint64_t CountRepeatedRows(const std::map<uint64_t, std::vector<Block>>& streams,
                           const RowSizes& sizes) {
  absl::flat_hash_set<uint64_t> seen;
  uint64_t repeated = 0;
  for (const auto& [stream, blocks] : streams) {
    for (const Block& block : blocks) {
      for (absl::string_view rest = block.rows; !rest.empty();) {
        const absl::string_view row = rest.substr(0, sizes.First(rest));
        if (!seen.insert(absl::HashOf(row)).second) ++repeated;
        rest.remove_prefix(row.size());
      }
    }
  }
  return repeated;
}

void PrintTotals(const Totals& totals) {
  std::cout << absl::StreamFormat(
      "{\"streams\":%d,\"blocks\":%d,\"rows\":%d,\"env_steps\":%d,\"counted_env_steps\":%d,"
      "\"corrupt_blocks\":%d,\"duplicates\":%d,\"repeated_rows\":%d}\n",
      totals.streams, totals.blocks, totals.rows, totals.env_steps, totals.counted_env_steps,
      totals.corrupt_blocks, totals.duplicates, totals.repeated_rows);
}

absl::Status Dump(absl::Span<const uint8_t> file) {
  const absl::StatusOr<LogReader> log = LogReader::Make(file);
  if (!log.ok()) return log.status();
  Totals totals;
  totals.counted_env_steps = log->CountedEnvSteps();
  const auto streams = log->ReadBlocks(&totals.corrupt_blocks);
  for (const auto& [stream, blocks] : streams) {
    PrintStream(stream, blocks, &totals);
  }
  totals.repeated_rows = CountRepeatedRows(streams, log->row_sizes());
  PrintTotals(totals);
  return absl::OkStatus();
}

absl::Status DumpFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError("cannot open", path, errno);
  const absl::Cleanup close_file = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return FileError("cannot examine", path, errno);
  if (info.st_size == 0) return absl::DataLossError(absl::StrCat(path, " is empty"));
  const auto size_bytes = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return FileError("cannot map", path, errno);
  const absl::Cleanup unmap = [=] { munmap(data, size_bytes); };
  const absl::Status dumped = Dump({static_cast<const uint8_t*>(data), size_bytes});
  if (dumped.ok()) return dumped;
  return absl::Status(dumped.code(), absl::StrCat(path, ": ", dumped.message()));
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  const std::string argument = argc == 2 ? argv[1] : "";
  if (argument == "--help") {
    std::cout << troupe::kUsage;
    return 0;
  }
  if (argument.empty() || argument.starts_with("-")) {
    std::cerr << "usage: " << troupe::kUsage;
    return 2;
  }
  const absl::Status status = troupe::DumpFile(argument);
  if (status.ok()) return 0;
  std::cerr << "troupe-row-log: " << status.message() << "\n";
  return 1;
}
