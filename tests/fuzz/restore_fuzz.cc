// Restore of two data directories whose row logs hold any bytes.  The input: a byte of which the
// low bits say into how many shards, one of the length of what is done to the first log, that, and
// what is done to the second.  What is restored is all rows that verified in the sources, each
// once, with the sums of their counts; and it verifies.
#include "common/crc32c.h"
#include "replay_server/restore.h"
#include "tests/fuzz/forged_log.h"

namespace troupe {
namespace {

constexpr uint64_t kStreams[2][2] = {{0, 7}, {8, ~uint64_t{0}}};
constexpr size_t kMaxTargets = 3;

// What of a log goes over into others.
struct Sums {
  uint64_t rows = 0;
  uint64_t contents = 0;  // of digests of rows, which say where they belong
  uint64_t counted = 0;   // rows_appended

  bool operator==(const Sums& other) const {
    return rows == other.rows && contents == other.contents && counted == other.counted;
  }
};

void AddTo(RowLog& log, Sums* sums) {
  for (const uint32_t block : log.BlocksByAge()) {
    const uint64_t first = log.first_row(block);
    for (uint64_t number = first; number < first + log.row_count(block); ++number) {
      const auto slot = static_cast<uint32_t>(number % kRowsPerBlock);
      const float priority = log.metadata().has_priorities ? log.priority(block, slot) : 0;
      const uint64_t where[] = {log.stream(block), number, log.times_sampled(block, slot)};
      const uint32_t digest = Crc32c(Crc32c(0, where, sizeof(where)), &priority, sizeof(priority));
      sums->contents += Crc32c(digest, log.row(block, slot), log.RowsBytes(block, slot, 1));
    }
  }
  sums->rows += log.rows();
  sums->counted += log.counts_lost() ? log.rows() : log.counts().rows_appended;
}

// Two directories, each with a log that is in memory under its path.
class Sources final {
 public:
  Sources() {
    for (size_t i = 0; i < 2; ++i) {
      directories_.push_back(OwnPath(absl::StrCat("from", i)));
      std::filesystem::create_directories(directories_[i]);
      WriteWhole(Log(i), "");  // its name is looked for on the disk
      histories_.push_back(MakeHistory(Log(i), kStreams[i]));
    }
  }

  absl::Span<const std::string> directories() const { return directories_; }
  std::string Log(size_t i) const { return directories_[i] + "/replay.rows"; }
  void Forge(size_t i, absl::string_view bytes) const {
    Numbers numbers(bytes);
    File* const file = &MemoryFile(Log(i));
    *file = File(histories_[i].ages.back());
    troupe::Forge(histories_[i].geometry, &numbers, file);
  }

 private:
  std::vector<std::string> directories_;
  std::vector<History> histories_;
};

void TestOne(absl::string_view input) {
  static const Sources* const sources = new Sources;
  Numbers numbers(input.substr(0, 2));
  const size_t num_targets = 1 + numbers.Take(1) % kMaxTargets;
  const uint64_t first_bytes = numbers.Take(1);
  input.remove_prefix(std::min<size_t>(2, input.size()));
  sources->Forge(0, input.substr(0, first_bytes));
  sources->Forge(1, input.substr(std::min<size_t>(first_bytes, input.size())));
  std::vector<std::string> targets;
  for (size_t i = 0; i < num_targets; ++i) targets.push_back(OwnPath(absl::StrCat("to", i)));

  const absl::StatusOr<Restored> restored = Restore(sources->directories(), targets);
  if (!restored.ok())
    return Require(!restored.status().message().empty(), "refused without a word");
  Sums before, after;
  for (size_t i = 0; i < 2; ++i) AddTo(*MustRecover(sources->Log(i)), &before);
  for (size_t i = 0; i < num_targets; ++i) {
    const std::unique_ptr<RowLog> log = MustRecover(targets[i] + "/replay.rows");
    Require(log->corrupt_blocks() == 0 && !log->counts_lost(), "what was restored is damaged");
    Require(log->rows() == restored->tables[0].shards[i].rows, "another number of rows is told");
    AddTo(*log, &after);
  }
  Require(before == after, before.rows, " rows of ", before.counted, " were restored as ",
          after.rows, " of ", after.counted);
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
