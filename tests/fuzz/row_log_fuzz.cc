// Recovery of a row log that something happened to.  The first byte of the input says what:
//   'T' torn     each 64-byte line of the file is of some age of the log, as after a power cut
//   'D' damaged  up to three bits are flipped, or the end is missing; a CRC-32C finds all of these
//   otherwise    hostile: any bytes anywhere, checks made to fit where the input asks for it
// In lower case ('t', 'd', 'h') the log is one of encoded rows.
// Whatever it was, recovery serves no row that does not verify, and rows that are appended after it
// are there after the next.  Torn or damaged, it also serves no row that was never appended so, and
// blocks that nothing happened to are whole.
#include <algorithm>
#include <cstring>
#include <memory>
#include <set>

#include "common/crc32c.h"
#include "tests/fuzz/forged_log.h"

namespace troupe {
namespace {

constexpr uint64_t kStreams[] = {0, 7, ~uint64_t{0}};
constexpr uint64_t kLineBytes = 64;
constexpr uint64_t kMaxRowNumber = uint64_t{1} << 56;  // as tables have it

void Tear(const History& history, Numbers* numbers, File* file) {
  const uint64_t num_lines = file->size() / kLineBytes;
  while (!numbers->empty()) {
    const File& age = history.ages[numbers->Take(1) % history.ages.size()];
    const uint64_t first = TakeOffset(numbers, history.geometry) / kLineBytes;
    const uint64_t count = std::min(numbers->Take(1) + 1, num_lines - first);
    std::memcpy(&(*file)[first * kLineBytes], &age[first * kLineBytes], count * kLineBytes);
  }
}

// `touched`: the blocks that it may have reached.
void Damage(const History& history, Numbers* numbers, File* file, std::set<uint64_t>* touched) {
  const uint64_t flips = numbers->Take(1) % 5;
  if (flips == 4) {
    const uint64_t size = numbers->Take(4) % file->size();
    for (uint64_t block = 0; block < kBlocks; ++block) {
      const uint64_t end = history.geometry.block_offset(block + 1);
      if (end > size) touched->insert(block);
    }
    *file = File(file->begin(), file->begin() + static_cast<int64_t>(size));
    return;
  }
  for (uint64_t i = 0; i < flips; ++i) {
    const uint64_t offset = TakeOffset(numbers, history.geometry);
    (*file)[offset] = static_cast<uint8_t>((*file)[offset] ^ 1 << numbers->Take(1) % 8);
    const LogGeometry& geometry = history.geometry;
    if (offset >= geometry.rows_offset) {
      touched->insert((offset - geometry.rows_offset) / geometry.block_bytes());
    } else if (offset >= geometry.headers_offset && offset < geometry.times_offset) {
      touched->insert((offset - geometry.headers_offset) / sizeof(BlockHeader));
    }
  }
}

bool Verifies(const RowLog& log, uint32_t block, const File& file) {
  const LogGeometry geometry = ComputeGeometry(log.metadata()).value();
  BlockHeader header;
  std::memcpy(&header, file.data() + geometry.headers_offset + block * sizeof(header),
              sizeof(header));
  const auto first_slot = static_cast<uint32_t>(log.first_row(block) % kRowsPerBlock);
  const uint32_t crc32c =
      Crc32c(0, log.row(block, first_slot), log.RowsBytes(block, first_slot, log.row_count(block)));
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
  const File& file = MemoryFile(path);
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
      const std::string row = known ? BytesOf(log, log.stream(block), number) : "";
      Require(!known || (log.RowsBytes(block, first_slot + i, 1) == row.size() &&
                         std::memcmp(log.row(block, first_slot + i), row.data(), row.size()) == 0),
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
    if (!Append(log.get(), stream, count)) return;
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
  static const History histories[] = {MakeHistory(path, kStreams),
                                      MakeHistory(path, kStreams, /*encoded=*/true)};
  const bool encoded = !input.empty() && input[0] >= 'a' && input[0] <= 'z';
  const History& history = histories[encoded ? 1 : 0];
  const char what = input.empty() ? 'H' : encoded ? static_cast<char>(input[0] - 32) : input[0];
  Numbers numbers(input.substr(std::min<size_t>(1, input.size())));
  std::set<uint64_t> touched;
  File* const file = &MemoryFile(path);
  *file = File(history.ages.back());  // of no larger capacity, for AddressSanitizer
  if (what == 'T') {
    Tear(history, &numbers, file);
  } else if (what == 'D') {
    Damage(history, &numbers, file, &touched);
  } else {
    Forge(history.geometry, &numbers, file);
  }
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
