// Recovery of a row log that something happened to.  The first byte of the input says what:
//   'T' torn     each 64-byte line of the file is of some age of the log, as after a power cut
//   'D' damaged  up to three bits are flipped, or the end is missing; a CRC-32C finds all of these
//   otherwise    hostile: any bytes anywhere, checks made to fit where the input asks for it
// Whatever it was, recovery serves no row that does not verify, and rows that are appended after it
// are there after the next.  Torn or damaged, it also serves no row that was never appended so, and
// blocks that nothing happened to are whole.
#include <algorithm>
#include <memory>
#include <set>

#include "common/crc32c.h"
#include "common/layout.h"
#include "replay_server/row_log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_file.h"

namespace troupe {
namespace {

constexpr uint64_t kStride = 32;
constexpr uint64_t kBlocks = 4;
constexpr uint64_t kStreams[] = {0, 7, ~uint64_t{0}};
constexpr uint64_t kLineBytes = 64;
constexpr uint64_t kMaxRowNumber = uint64_t{1} << 56;  // as tables have it

struct Row {
  RowHeader header;
  uint64_t stream;
  uint64_t number;
};
static_assert(sizeof(Row) == kStride);

// The one row that is ever appended under this number.
Row RowOf(uint64_t stream, uint64_t number) {
  const uint64_t mixed = (stream + 3 * number + 1) * 0x9e3779b97f4a7c15;
  return {{mixed, number % 37 == 36 ? kTerminated : 0u, 1}, stream, number};
}

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

// One log, at some moments of its life.
struct History {
  LogGeometry geometry;
  std::vector<std::string> ages;  // whole files, the newest last
  uint32_t row_counts[kBlocks];   // of the newest
};

std::string Contents(const std::string& path) {
  const std::vector<uint8_t>& file = MemoryFile(path);
  return std::string(file.begin(), file.end());
}

History MakeHistory(const std::string& path) {
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
    history.ages.push_back(Contents(path));
    Append(log.get(), kStreams[step % std::size(kStreams)], 5 + 17 * (step % 5));
  }
  history.ages.push_back(Contents(path));
  for (uint32_t block = 0; block < kBlocks; ++block) {
    history.row_counts[block] = log->row_count(block);
  }
  return history;
}

// The input's bytes, one number after the other; zeros behind its end.
class Numbers final {
 public:
  explicit Numbers(absl::string_view bytes) : bytes_(bytes) {}

  bool empty() const { return bytes_.empty(); }
  uint64_t Take(size_t num_bytes) {
    uint64_t number = 0;
    const size_t n = std::min(num_bytes, bytes_.size());
    std::memcpy(&number, bytes_.data(), n);
    bytes_.remove_prefix(n);
    return number;
  }

 private:
  absl::string_view bytes_;
};

// A place in one of the file's parts, which are mostly padding: all that has a meaning is in reach.
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

std::string Torn(const History& history, Numbers* numbers) {
  std::string file = history.ages.back();
  const uint64_t num_lines = file.size() / kLineBytes;
  while (!numbers->empty()) {
    const std::string& age = history.ages[numbers->Take(1) % history.ages.size()];
    const uint64_t first = TakeOffset(numbers, history.geometry) / kLineBytes;
    const uint64_t count = std::min(numbers->Take(1) + 1, num_lines - first);
    file.replace(first * kLineBytes, count * kLineBytes, age, first * kLineBytes,
                 count * kLineBytes);
  }
  return file;
}

// `touched`: the blocks that it may have reached.
std::string Damaged(const History& history, Numbers* numbers, std::set<uint64_t>* touched) {
  std::string file = history.ages.back();
  const uint64_t flips = numbers->Take(1) % 5;
  if (flips == 4) {
    const uint64_t size = numbers->Take(4) % file.size();
    for (uint64_t block = 0; block < kBlocks; ++block) {
      const uint64_t end = history.geometry.rows_offset + (block + 1) * kRowsPerBlock * kStride;
      if (end > size) touched->insert(block);
    }
    return file.substr(0, size);
  }
  for (uint64_t i = 0; i < flips; ++i) {
    const uint64_t offset = TakeOffset(numbers, history.geometry);
    file[offset] = static_cast<char>(file[offset] ^ 1 << numbers->Take(1) % 8);
    const LogGeometry& geometry = history.geometry;
    if (offset >= geometry.rows_offset) {
      touched->insert((offset - geometry.rows_offset) / (kRowsPerBlock * kStride));
    } else if (offset >= geometry.headers_offset && offset < geometry.times_offset) {
      touched->insert((offset - geometry.headers_offset) / sizeof(BlockHeader));
    }
  }
  return file;
}

// Makes the checks of one block, or of the counts, or of the file's header say what is there.
void FitChecks(uint64_t which, const LogGeometry& geometry, std::string* file) {
  auto* bytes = reinterpret_cast<uint8_t*>(file->data());
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

std::string Hostile(const History& history, Numbers* numbers) {
  std::string file = history.ages.back();
  while (!numbers->empty()) {
    const uint64_t what = numbers->Take(1);
    if (what < 32) {
      FitChecks(what % (kBlocks + 2), history.geometry, &file);
      continue;
    }
    const uint64_t offset = TakeOffset(numbers, history.geometry);
    const size_t size = std::min<size_t>(1 << what % 4, file.size() - offset);
    const uint64_t value = numbers->Take(size);
    std::memcpy(file.data() + offset, &value, size);
  }
  return file;
}

bool Verifies(const RowLog& log, uint32_t block, const std::vector<uint8_t>& file) {
  const LogGeometry geometry = ComputeGeometry(log.metadata()).value();
  BlockHeader header;
  std::memcpy(&header, file.data() + geometry.headers_offset + block * sizeof(header),
              sizeof(header));
  const uint32_t crc32c = Crc32c(0, log.row(block, log.first_row(block) % kRowsPerBlock),
                                 log.row_count(block) * log.stride_bytes());
  return std::any_of(std::begin(header.slots), std::end(header.slots), [&](const auto& slot) {
    return slot.row_count == log.row_count(block) && slot.rows_crc32c == crc32c &&
           slot.check == CommitCheck(header, slot);
  });
}

// No row is there twice.
void CheckApart(const RowLog& log, const std::vector<uint32_t>& blocks) {
  for (const uint32_t a : blocks) {
    for (const uint32_t b : blocks) {
      if (a == b || log.stream(a) != log.stream(b)) continue;
      Require(log.first_row(a) - log.first_row(b) >= log.row_count(b), "a row is there twice");
    }
  }
}

// None that does not verify; and if `known`, none that RowOf() does not know.
void CheckServed(RowLog& log, const std::string& path, bool known) {
  const std::vector<uint8_t>& file = MemoryFile(path);
  const std::vector<uint32_t> blocks = log.BlocksByAge();
  CheckApart(log, blocks);
  uint64_t rows = 0;
  for (const uint32_t block : blocks) {
    const uint32_t first_slot = log.first_row(block) % kRowsPerBlock;
    Require(first_slot + log.row_count(block) <= kRowsPerBlock, "rows behind the block's end");
    Require(Verifies(log, block, file), "a block is served that does not verify");
    for (uint32_t i = 0; i < log.row_count(block); ++i, ++rows) {
      const uint64_t number = log.first_row(block) + i;
      Require(number < log.HeldRows(log.stream(block)), "a row is served that is not held");
      const Row row = RowOf(log.stream(block), number);
      Require(!known || std::memcmp(log.row(block, first_slot + i), &row, kStride) == 0,
              "a row is served that was never appended");
      if (!log.metadata().has_priorities) continue;
      Require(log.priority(block, first_slot + i) >= 0, "a priority is negative or none");
    }
  }
  Require(rows == log.rows(), "another number of rows");
}

// Rows that are appended now are there after the next recovery, which finds no damage.
void CheckGoesOn(std::unique_ptr<RowLog> log, const std::string& path, bool known) {
  const uint64_t stride = log->stride_bytes();
  const uint64_t count = log->num_blocks() == 1 ? 10 : 70;
  uint64_t held = 0;
  for (const uint64_t stream : {kStreams[1], uint64_t{12345}}) {
    if (log->HeldRows(stream) > kMaxRowNumber) return;
    Append(log.get(), stream, count);
    held = log->HeldRows(stream);
  }
  CheckServed(*log, path, known);
  log.reset();
  const std::unique_ptr<RowLog> again = MustRecover(path);
  Require(again->corrupt_blocks() == 0, "recovery left damage behind");
  Require(again->HeldRows(12345) == held, "rows appended after recovery are lost");
  Require(!again->counts_lost(), "counts were lost after a recovery");
  CheckServed(*again, path, known);
  Require(again->stride_bytes() == stride, "another stride");
}

void TestOne(absl::string_view input) {
  static const std::string path = OwnPath("row_log");
  static const History history = MakeHistory(path);
  const char what = input.empty() ? 'H' : input[0];
  Numbers numbers(input.substr(std::min<size_t>(1, input.size())));
  std::set<uint64_t> touched;
  const std::string file = what == 'T'   ? Torn(history, &numbers)
                           : what == 'D' ? Damaged(history, &numbers, &touched)
                                         : Hostile(history, &numbers);
  MemoryFile(path) = std::vector<uint8_t>(file.begin(), file.end());
  absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Recover(path);
  if (!log.ok()) {
    Require(what != 'T', "a torn log cannot be read at all");
    return;
  }
  const bool known = what == 'T' || what == 'D';
  CheckServed(**log, path, known);
  if (what == 'D') {
    Require((*log)->corrupt_blocks() <= touched.size(), "more is damaged than was");
    for (uint32_t block = 0; block < kBlocks; ++block) {
      const bool whole = (*log)->row_count(block) == history.row_counts[block];
      Require(whole || touched.contains(block), "a block was lost that nothing happened to");
      Require(whole || (*log)->corrupt_blocks() > 0, "a loss is not counted");
    }
  }
  CheckGoesOn(*std::move(log), path, known);
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
