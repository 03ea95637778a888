#include "tests/chaos/shard_kill/log_check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/crc32c.h"
#include "replay_server/row_log_format.h"
#include "tests/chaos/shard_kill/ledger.h"

namespace troupe {
namespace {

struct Block {
  uint64_t generation = 0;
  uint64_t first_row = 0;
  uint64_t num_rows = 0;
  const char* rows = nullptr;
};

class LogCheck final {
 public:
  LogCheck(const KnownRows& rows, Findings* findings) : rows_(rows), findings_(findings) {}

  absl::Status Read(absl::Span<const uint8_t> file) {
    const absl::StatusOr<LogMetadata> metadata = ParseFileHeader(file);
    if (!metadata.ok()) return metadata.status();
    const absl::StatusOr<LogGeometry> geometry = ComputeGeometry(*metadata);
    if (!geometry.ok()) return geometry.status();
    num_blocks_ = geometry->num_blocks;
    for (uint64_t i = 0; i < num_blocks_; ++i) ReadBlock(file, *geometry, i);
    return absl::OkStatus();
  }

  void CheckStreams(const std::map<uint64_t, StreamFacts>& streams,
                    const std::map<uint64_t, std::vector<LedgerEntry>>& ledger) {
    for (const auto& [stream, blocks] : blocks_) {
      const auto facts = streams.find(stream);
      if (facts == streams.end()) {
        findings_->Doubled(1, absl::StrCat(StreamName(stream), ": nobody sent it"));
        continue;
      }
      CheckStream(stream, facts->second, ledger);
    }
    for (const auto& [stream, facts] : streams) {
      if (!facts.active || facts.acked_rows == 0 || blocks_.count(stream) > 0) continue;
      findings_->Lost(facts.acked_rows, absl::StrCat(StreamName(stream), ": none of its ",
                                                     facts.acked_rows, " acked rows is there"));
    }
  }

  // The ring gives up its oldest block for a new one; one may be on its way.
  void CheckRing() {
    std::sort(generations_.begin(), generations_.end());
    for (size_t i = 1; i < generations_.size(); ++i) {
      const uint64_t missing = generations_[i] - generations_[i - 1] - 1;
      if (missing == 0) continue;
      findings_->Lost(missing, absl::StrCat("blocks ", generations_[i - 1] + 1, " to ",
                                            generations_[i] - 1, " are gone, older ones are not"));
    }
    const uint64_t newest = generations_.empty() ? 0 : generations_.back();
    const uint64_t expected = std::min(newest, num_blocks_ - 1);
    if (generations_.size() >= expected) return;
    findings_->Lost(expected - generations_.size(),
                    absl::StrCat("the ring has room for ", num_blocks_, " blocks, ", newest,
                                 " were begun, and it holds ", generations_.size()));
  }

 private:
  void ReadBlock(absl::Span<const uint8_t> file, const LogGeometry& geometry, uint64_t index) {
    const uint8_t* rows =
        file.data() + geometry.rows_offset + index * kRowsPerBlock * geometry.stride_bytes;
    BlockHeader header;
    std::memcpy(&header, file.data() + geometry.headers_offset + index * sizeof(header),
                sizeof(header));
    const BlockContents contents = VerifyBlock(header, index, geometry, rows);
    if (contents.damaged) {
      findings_->Corrupt(1, absl::StrCat("block ", header.generation, " at index ", index, ", ",
                                         StreamName(header.stream), " from row ", header.first_row,
                                         ": something committed does not verify"));
    }
    if (contents.committed.row_count == 0) return;
    const uint64_t first_slot = header.first_row % kRowsPerBlock;
    generations_.push_back(header.generation);
    blocks_[header.stream].push_back(
        {header.generation, header.first_row, contents.committed.row_count,
         reinterpret_cast<const char*>(rows) + first_slot * geometry.stride_bytes});
  }

  void CheckStream(uint64_t stream, const StreamFacts& facts,
                   const std::map<uint64_t, std::vector<LedgerEntry>>& ledger) {
    std::vector<Block>& blocks = blocks_[stream];
    std::sort(blocks.begin(), blocks.end(),
              [](const Block& a, const Block& b) { return a.generation < b.generation; });
    const uint64_t first = blocks.front().first_row;
    uint64_t next = first;
    std::string found;
    bool without_gap = true;
    for (const Block& block : blocks) {
      without_gap = without_gap && block.first_row == next;
      CheckPlace(stream, block, next);
      next = block.first_row + block.num_rows;
      found.append(block.rows, block.num_rows * KnownRows::kStrideBytes);
      CheckRows(stream, block);
    }
    if (next < facts.acked_rows) {
      findings_->Lost(facts.acked_rows - next,
                      absl::StrCat(StreamName(stream), ": rows ", next, " to ",
                                   facts.acked_rows - 1, " were acked and are not there"));
    }
    if (next > facts.sent_rows) {
      findings_->Doubled(next - facts.sent_rows,
                         absl::StrCat(StreamName(stream), ": row ", next - 1, " is there, only ",
                                      facts.sent_rows, " rows were sent"));
    }
    const auto entries = ledger.find(stream);
    if (without_gap && entries != ledger.end()) CheckCrcs(entries->second, first, found);
  }

  void CheckPlace(uint64_t stream, const Block& block, uint64_t next) {
    if (block.first_row > next) {
      findings_->Lost(block.first_row - next,
                      absl::StrCat(StreamName(stream), ": rows ", next, " to ", block.first_row - 1,
                                   " are missing"));
    }
    if (block.first_row < next) {
      findings_->Doubled(next - block.first_row,
                         absl::StrCat(StreamName(stream), ": row ", block.first_row,
                                      " is there again, in block ", block.generation));
    }
  }

  void CheckRows(uint64_t stream, const Block& block) {
    constexpr uint64_t kStride = KnownRows::kStrideBytes;
    const std::string expected = rows_.Pack(stream, block.first_row, block.num_rows);
    if (std::memcmp(expected.data(), block.rows, expected.size()) == 0) return;
    for (uint64_t i = 0; i < block.num_rows; ++i) {
      if (std::memcmp(&expected[i * kStride], block.rows + i * kStride, kStride) == 0) continue;
      findings_->Altered(1, absl::StrCat(StreamName(stream), ": row ", block.first_row + i,
                                         " is not what was sent"));
    }
  }

  // From ack to ack, the bytes of `found`, which are the stream's rows from `first` on, give the
  // CRCs that the ledger has.
  void CheckCrcs(const std::vector<LedgerEntry>& entries, uint64_t first,
                 const std::string& found) {
    const uint64_t end = first + found.size() / KnownRows::kStrideBytes;
    uint64_t row = 0;
    uint32_t crc = 0;
    for (const LedgerEntry& entry : entries) {
      if (entry.held_rows > end || entry.held_rows < row) return;  // reported: lost or doubled
      if (row >= first) {
        crc = Crc32c(crc, &found[(row - first) * KnownRows::kStrideBytes],
                     (entry.held_rows - row) * KnownRows::kStrideBytes);
        if (crc != entry.rows_crc32c) {
          findings_->Altered(entry.held_rows - row,
                             absl::StrCat(StreamName(entry.stream), ": of rows ", row, " to ",
                                          entry.held_rows - 1, " the CRC is not the ledger's"));
        }
      }
      row = entry.held_rows;
      crc = entry.rows_crc32c;
    }
  }

  const KnownRows& rows_;
  Findings* const findings_;
  uint64_t num_blocks_ = 0;
  std::vector<uint64_t> generations_;
  std::map<uint64_t, std::vector<Block>> blocks_;  // by stream
};

}  // namespace

absl::Status CheckLog(const std::string& log_path, const std::string& ledger_path,
                      const std::map<uint64_t, StreamFacts>& streams, const KnownRows& rows,
                      Findings* findings) {
  const auto ledger = Ledger::Read(ledger_path);
  if (!ledger.ok()) return ledger.status();
  const int fd = open(log_path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", log_path));
  const absl::Cleanup close_file = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, log_path);
  const auto size_bytes = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", log_path));
  const absl::Cleanup unmap = [=] { munmap(data, size_bytes); };
  LogCheck check(rows, findings);
  const absl::Status read = check.Read({static_cast<const uint8_t*>(data), size_bytes});
  if (!read.ok()) return read;
  check.CheckStreams(streams, *ledger);
  check.CheckRing();
  return absl::OkStatus();
}

}  // namespace troupe
