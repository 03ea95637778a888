// troupe-shard-kill: kills a replay shard again and again while it is appended to, and checks that
// no acked row is lost, doubled or altered.
//
//   troupe-shard-kill --kills 3000 --min_rows 100000000
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "tests/chaos/shard_kill/kill_loop.h"

ABSL_FLAG(std::string, server, "", "path of troupe-replay-server; empty: this build's");
ABSL_FLAG(uint64_t, kills, 100, "kills, at least");
ABSL_FLAG(uint64_t, min_rows, 2'000'000, "acked rows, at least");
ABSL_FLAG(uint64_t, seed, 1, "of the rows and of every choice; moments differ all the same");
ABSL_FLAG(int, threads, 3, "writers, each with a connection and three streams");
ABSL_FLAG(uint64_t, capacity_rows, 200'000, "of the ring");
ABSL_FLAG(uint64_t, check_every, 10, "kills from one reading of the log to the next");
ABSL_FLAG(std::string, dir, "",
          "an empty directory for the shard's data and the ledger, which stay there; empty: a "
          "temporary one, which stays only if something was found");
ABSL_FLAG(std::string, out, "", "file that the last line goes to as well");

namespace troupe {
namespace {

double Quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(std::floor(share * static_cast<double>(values.size() - 1)))];
}

std::string MakeDirectory() {
  if (std::string dir = absl::GetFlag(FLAGS_dir); !dir.empty()) {
    std::filesystem::create_directories(dir);
    return dir;
  }
  std::string name = (std::filesystem::temp_directory_path() / "shard_kill_XXXXXX").string();
  return mkdtemp(name.data()) == nullptr ? "" : name;
}

void Report(const KillLoopReport& report, const FindingCounts& found, double seconds) {
  nlohmann::ordered_json line;
  line["kills"] = report.kills;
  line["kills_while_starting"] = report.kills_while_starting;
  line["kills_while_opening"] = report.kills_while_opening;
  line["acked_rows"] = report.acked_rows;
  line["streams"] = report.streams;
  line["log_checks"] = report.log_checks;
  line["lost"] = found.lost;
  line["doubled"] = found.doubled;
  line["altered"] = found.altered;
  line["corrupt_blocks"] = found.corrupt_blocks;
  line["others"] = found.others;
  line["seconds"] = seconds;
  line["recovery_seconds_p50"] = Quantile(report.recovery_seconds, 0.5);
  line["recovery_seconds_p99"] = Quantile(report.recovery_seconds, 0.99);
  std::cout << line.dump() << std::endl;
  if (const std::string out = absl::GetFlag(FLAGS_out); !out.empty()) {
    std::ofstream(out) << line.dump() << "\n";
  }
}

int Main() {
  KillLoopOptions options = {.program = absl::GetFlag(FLAGS_server),
                             .dir = MakeDirectory(),
                             .capacity_rows = absl::GetFlag(FLAGS_capacity_rows),
                             .kills = absl::GetFlag(FLAGS_kills),
                             .min_rows = absl::GetFlag(FLAGS_min_rows),
                             .seed = absl::GetFlag(FLAGS_seed),
                             .threads = absl::GetFlag(FLAGS_threads),
                             .check_every = absl::GetFlag(FLAGS_check_every)};
  if (options.threads < 1 || options.check_every < 1) {
    std::cerr << "troupe-shard-kill: --threads >= 1, --check_every >= 1 are needed\n";
    return 2;
  }
  const absl::Time begin = absl::Now();
  Findings findings;
  absl::StatusOr<std::unique_ptr<KillLoop>> loop = KillLoop::Make(options, &findings);
  const absl::Status status = loop.ok() ? (*loop)->Run() : loop.status();
  if (!status.ok()) findings.Other(std::string(status.message()));
  Report(loop.ok() ? (*loop)->report() : KillLoopReport(), findings.counts(),
         absl::ToDoubleSeconds(absl::Now() - begin));
  if (findings.any()) {
    std::cerr << "troupe-shard-kill: data, ledger and the server's log are in " << options.dir
              << "\n";
    return 1;
  }
  if (absl::GetFlag(FLAGS_dir).empty()) std::filesystem::remove_all(options.dir);
  return 0;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("kills a replay shard while it is appended to; --help=shard_kill");
  absl::ParseCommandLine(argc, argv);
  return troupe::Main();
}
