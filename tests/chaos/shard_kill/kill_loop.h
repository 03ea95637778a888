#ifndef TROUPE_TESTS_CHAOS_SHARD_KILL_KILL_LOOP_H_
#define TROUPE_TESTS_CHAOS_SHARD_KILL_KILL_LOOP_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/chaos/shard_kill/findings.h"
#include "tests/chaos/shard_kill/ledger.h"
#include "tests/chaos/shard_kill/server_life.h"
#include "tests/chaos/shard_kill/writer.h"

namespace troupe {

struct KillLoopOptions {
  std::string program;  // troupe-replay-server; empty: this build's
  std::string dir;      // holds data, ledger and server.log
  uint64_t capacity_rows = 0;
  uint64_t kills = 100;
  uint64_t min_rows = 0;
  uint64_t seed = 1;
  int threads = 3;
  uint64_t check_every = 10;  // kills from one reading of the log to the next
};

struct KillLoopReport {
  uint64_t kills = 0;
  uint64_t kills_while_starting = 0;  // before the port was known
  uint64_t kills_while_opening = 0;   // before the first calls had their answers
  uint64_t acked_rows = 0;
  uint64_t streams = 0;
  uint64_t log_checks = 0;
  std::vector<double> recovery_seconds;  // from the start of a process to the first held counts
};

// Starts a shard, appends to it, kills it, checks what is left, and so on until there were enough
// kills and rows or something was found.
class KillLoop final {
 public:
  // `options.dir` is empty.
  static absl::StatusOr<std::unique_ptr<KillLoop>> Make(const KillLoopOptions& options,
                                                        Findings* findings);

  // An error: the loop itself cannot go on.
  absl::Status Run();
  KillLoopReport report() const;

 private:
  // When the server is killed: after so long in one phase of its life, or once so many rows were
  // acked in it.
  struct KillPlan {
    enum Phase { kStarting, kOpening, kWriting } phase;
    absl::Duration after;
    uint64_t acked_rows;
  };

  KillLoop(const KillLoopOptions& options, Findings* findings, std::unique_ptr<Ledger> ledger);
  KillPlan DrawPlan();
  double DrawReal(double least, double most) {
    return std::uniform_real_distribution<double>(least, most)(random_);
  }
  // One life of the server.
  absl::Status Live();
  void UseServer(const KillPlan& plan, ServerLife* server);
  // Asks for held counts and holds them against what was acked.  False: no answer.
  bool TakeStock(proto::Replay::Stub* stub, const ServerLife& server);
  grpc::Status AskHeld(proto::Replay::Stub* stub, std::map<uint64_t, uint64_t>* held);
  void CheckHeld(const std::map<uint64_t, uint64_t>& held, const proto::TableDescription& table);
  void Write(int port, const KillPlan& plan, ServerLife* server);
  absl::Status CheckLogFile();
  std::map<uint64_t, StreamFacts> Facts() const;
  void ShowProgress() const;

  const KillLoopOptions options_;
  const std::string ledger_path_;
  const KnownRows rows_;
  Findings* const findings_;
  const std::unique_ptr<Ledger> ledger_;
  Pace pace_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Writer>> writers_;
  KillLoopReport report_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_CHAOS_SHARD_KILL_KILL_LOOP_H_
