#ifndef TROUPE_TESTS_BENCH_REPLAY_REPORT_H_
#define TROUPE_TESTS_BENCH_REPLAY_REPORT_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/bench/replay/append_client.h"
#include "tests/bench/replay/follow_client.h"
#include "tests/bench/replay/measure.h"
#include "tests/bench/replay/sample_client.h"
#include "tests/bench/replay/transport.h"

namespace troupe {

// All clients of one run of the load generator.
struct Load {
  std::vector<std::unique_ptr<AppendClient>> append;
  std::vector<std::unique_ptr<SampleClient>> sample;
  std::vector<std::unique_ptr<FollowClient>> follow;
  std::vector<std::unique_ptr<TransportClient>> transport;

  std::vector<StreamClient*> all() const;
};

// How far everybody is at one moment.
struct Progress {
  CpuTimes cpu;
  int64_t appended, sampled, followed, messages;
  std::vector<int64_t> appended_by;  // each client
};
Progress ReadProgress(const Load& load, pid_t server_pid);

// Rates, latencies, CPU and findings between two moments: numbers only, flat.
// REQUIRES: all clients are done.
nlohmann::json Report(const Load& load, const Progress& from, const Progress& to);

}  // namespace troupe

#endif  // TROUPE_TESTS_BENCH_REPLAY_REPORT_H_
