#ifndef TROUPE_TESTS_BENCH_REPLAY_SAMPLE_CLIENT_H_
#define TROUPE_TESTS_BENCH_REPLAY_SAMPLE_CLIENT_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "proto/replay.pb.h"
#include "tests/bench/replay/messages.h"
#include "tests/bench/replay/rows.h"
#include "tests/bench/replay/stream_client.h"

namespace troupe {

struct SampleLoad {
  std::string run, table;
  std::shared_ptr<const RowPatterns> patterns;
  int64_t batch = 256;        // windows of one request
  int64_t in_flight = 16;     // requests
  int64_t window_length = 2;  // rows
  // Each request carries a new priority for every window that came since the last one.
  bool update_priorities = false;
  // For the drift of the ratio: inserted * samples_per_insert - sampled.
  double samples_per_insert = 0;
  int64_t min_size = 1;
};

// What a sample client has found, once it is done.
struct SampleFindings {
  int64_t wrong_windows = 0;  // that are not consecutive rows of one stream
  int64_t wrong_replies = 0;  // that cannot be read, or whose parts differ in number
  int64_t empty_replies = 0;  // timeouts of the rate limiter
  // Of inserted * samples_per_insert - sampled, over the measured replies. Unit: samples
  double drift_min = 0, drift_max = 0;
  bool drift_known = false;

  void Add(const SampleFindings& other);
};

// Keeps requests for windows in flight; copies each reply into one batch and checks it.
class SampleClient final : public StreamClient {
 public:
  SampleClient(std::shared_ptr<grpc::Channel> channel, const SampleLoad& load,
               const Measuring* measuring);

  // REQUIRES: Await has returned.
  const SampleFindings& findings() const { return findings_; }

 private:
  void Receive(const grpc::ByteBuffer& message) override;
  void HandleReceived() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool NextMessage(grpc::ByteBuffer* message) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteDrift();
  void AddPriorities(proto::PriorityUpdates* updates) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const SampleLoad load_;
  // Of the one read under way.
  SampledWindows reply_;
  SampleFindings findings_;
  bool opening_ ABSL_GUARDED_BY(mu_) = true;
  std::vector<uint64_t> to_update_ ABSL_GUARDED_BY(mu_);  // row ids
  std::vector<float> priorities_ ABSL_GUARDED_BY(mu_);    // drawn from in turn
  size_t updated_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<Clock::time_point> asked_ ABSL_GUARDED_BY(mu_);  // of the requests in flight
};

}  // namespace troupe

#endif  // TROUPE_TESTS_BENCH_REPLAY_SAMPLE_CLIENT_H_
