#ifndef TROUPE_TESTS_UNIT_CLIENT_FAKE_SHARD_H_
#define TROUPE_TESTS_UNIT_CLIENT_FAKE_SHARD_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "proto/replay.grpc.pb.h"
#include "proto/weights.grpc.pb.h"
#include "tests/unit/client/small_layout.h"

namespace troupe::testing {

// What a shard keeps, and how it is told to misbehave.  Thread-safe; outlives the servers.
struct FakeShardState {
  mutable absl::Mutex mu;
  // Append.
  std::map<uint64_t, std::string> streams ABSL_GUARDED_BY(mu);  // rows by stream
  int64_t stride_bytes ABSL_GUARDED_BY(mu) = 0;
  int64_t duplicate_rows ABSL_GUARDED_BY(mu) = 0;
  int64_t append_opens ABSL_GUARDED_BY(mu) = 0;
  bool acks ABSL_GUARDED_BY(mu) = true;            // false: rows are stored, nothing is answered
  int64_t ack_one_in ABSL_GUARDED_BY(mu) = 1;      // answers only every so many messages
  int64_t overclaim_rows ABSL_GUARDED_BY(mu) = 0;  // acks that many rows too many
  int64_t window_bytes ABSL_GUARDED_BY(mu) = 1 << 20;
  int64_t messages ABSL_GUARDED_BY(mu) = 0;  // stored
  int64_t largest_message_bytes ABSL_GUARDED_BY(mu) = 0;
  // From this many rows on the next message is not stored, silently; as by a slow disk.
  int64_t stores_rows ABSL_GUARDED_BY(mu) = std::numeric_limits<int64_t>::max();
  // From this many rows on writers are held back, and told so; as by a rate limiter.
  int64_t admits_rows ABSL_GUARDED_BY(mu) = std::numeric_limits<int64_t>::max();
  grpc::Status refuse ABSL_GUARDED_BY(mu);  // not OK: every call ends with it
  // Sample.
  proto::Layout layout ABSL_GUARDED_BY(mu);
  uint64_t inserted ABSL_GUARDED_BY(mu) = 0;
  uint64_t sampled ABSL_GUARDED_BY(mu) = 0;
  uint64_t preloaded ABSL_GUARDED_BY(mu) = 0;
  double mass ABSL_GUARDED_BY(mu) = 0;
  // Window `id` has this probability, over `mass`: weights[id % weights.size()].
  std::vector<double> weights ABSL_GUARDED_BY(mu) = {1};
  std::map<uint64_t, float> priorities ABSL_GUARDED_BY(mu);  // by row id, as clients set them
  bool answers ABSL_GUARDED_BY(mu) = true;     // false: requests for windows are held back
  bool silent ABSL_GUARDED_BY(mu) = false;     // no request is answered, as by one that is stopped
  int64_t short_by ABSL_GUARDED_BY(mu) = 0;    // windows missing from the next answers
  int64_t num_short ABSL_GUARDED_BY(mu) = 0;   // answers that are short
  int64_t wrong_size ABSL_GUARDED_BY(mu) = 0;  // answers that carry a byte too many
  int64_t polls ABSL_GUARDED_BY(mu) = 0;
  std::vector<proto::SampleRequest> requests ABSL_GUARDED_BY(mu);
  uint64_t max_epoch ABSL_GUARDED_BY(mu) = 0;
  // Weights.
  std::vector<uint64_t> published ABSL_GUARDED_BY(mu);
  bool takes_snapshots ABSL_GUARDED_BY(mu) = true;  // false: publishing hangs
  proto::SnapshotHeader header ABSL_GUARDED_BY(mu);
  std::string image ABSL_GUARDED_BY(mu);
  int64_t subscribers ABSL_GUARDED_BY(mu) = 0;

  // Waits, for at most a minute, for something that is to happen.
  bool Await(const std::function<bool(const FakeShardState&)>& condition) const
      ABSL_LOCKS_EXCLUDED(mu);
  // Changes the script.
  void Set(const std::function<void(FakeShardState&)>& change) ABSL_LOCKS_EXCLUDED(mu);

  // These are for use inside Await and Set.
  int64_t Rows() const ABSL_NO_THREAD_SAFETY_ANALYSIS;  // of all streams
};

// A shard in this process, with a plain synchronous server.  Not thread-safe.
class FakeShard final {
 public:
  FakeShard();
  ~FakeShard();

  const std::string& target() const { return target_; }
  FakeShardState& state() { return state_; }

  void Kill();     // ends all calls; what was stored stays
  void Restart();  // on the same port

 private:
  class ReplayService;
  class WeightsService;

  void Listen(const std::string& address);

  FakeShardState state_;
  std::string target_;
  std::unique_ptr<grpc::Service> replay_;
  std::unique_ptr<grpc::Service> weights_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTS_UNIT_CLIENT_FAKE_SHARD_H_
