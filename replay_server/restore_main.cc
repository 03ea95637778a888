// troupe-restore: rows of some shards into any number of new ones.
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "replay_server/restore.h"

namespace troupe {
namespace {

constexpr char kUsage[] =
    "troupe-restore --from DIR [--from DIR]... --to DIR [--to DIR]...\n"
    "Deals the rows of data directories or backups of shards (--from) out to new data directories\n"
    "(--to), one a shard, whole streams and as evenly as they allow. The sources are read only, "
    "and\n"
    "no server may use them. Every new shard has the capacity of an old one; what the rate "
    "limiter\n"
    "counts stays the same in sum. Start as many shards as there are targets on them.\n";

// False: not one of these flags.
bool TakeFlag(int argc, char** argv, int* i, std::vector<std::string>* from,
              std::vector<std::string>* to) {
  for (auto [flag, values] : {std::pair("--from", from), std::pair("--to", to)}) {
    absl::string_view argument = argv[*i];
    if (argument == flag && *i + 1 < argc) {
      values->push_back(argv[++*i]);
      return true;
    }
    if (absl::ConsumePrefix(&argument, flag) && absl::ConsumePrefix(&argument, "=")) {
      values->push_back(std::string(argument));
      return true;
    }
  }
  return false;
}

void Print(const Restored& restored) {
  for (const RestoredTable& table : restored.tables) {
    uint64_t rows = 0;
    uint64_t streams = 0;
    for (const RestoredShard& shard : table.shards) {
      rows += shard.rows;
      streams += shard.streams;
      std::cout << absl::StreamFormat("table '%s', %s: %d rows of %d streams, %d env steps\n",
                                      table.name, shard.directory, shard.rows, shard.streams,
                                      shard.counts.env_steps);
    }
    std::cout << absl::StreamFormat("table '%s', all: %d rows of %d streams; %d damaged blocks\n",
                                    table.name, rows, streams, table.dropped_blocks);
    for (const std::string& loss : table.losses) std::cout << "  " << loss << "\n";
  }
  for (const std::string& warning : restored.warnings) std::cout << "warning: " << warning << "\n";
  std::cout << absl::StreamFormat("snapshot: %d\n", restored.snapshot_version);
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  std::vector<std::string> from;
  std::vector<std::string> to;
  bool understood = true;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--help") {
      std::cout << troupe::kUsage;
      return 0;
    }
    understood = understood && troupe::TakeFlag(argc, argv, &i, &from, &to);
  }
  if (!understood || from.empty() || to.empty()) {
    std::cerr << "usage: " << troupe::kUsage;
    return 2;
  }
  const absl::StatusOr<troupe::Restored> restored = troupe::Restore(from, to);
  if (!restored.ok()) {
    std::cerr << "troupe-restore: " << restored.status().message() << "\n";
    return 1;
  }
  troupe::Print(*restored);
  return 0;
}
