#ifndef TROUPE_TESTS_CHAOS_SHARD_KILL_WRITER_H_
#define TROUPE_TESTS_CHAOS_SHARD_KILL_WRITER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/client_context.h"
#include "proto/replay.grpc.pb.h"
#include "tests/chaos/shard_kill/findings.h"
#include "tests/chaos/shard_kill/known_rows.h"
#include "tests/chaos/shard_kill/ledger.h"
#include "tests/chaos/shard_kill/log_check.h"
#include "tests/chaos/shard_kill/pace.h"

namespace troupe {

inline constexpr char kRunName[] = "shard_kill";
inline constexpr char kTableName[] = "replay";

// The first request of an Append call, which asks for the held counts of `streams`.
proto::AppendRequest OpenRequest(const std::vector<uint64_t>& streams);

// What writers share.
struct WriterContext {
  const KnownRows* rows;
  Ledger* ledger;
  Findings* findings;
  Pace* pace;
};

// Several streams that share one Append call in each life of the server.  Each ends at a row that
// was drawn when it began; then a new one takes its place.
class Writer final {
 public:
  Writer(int index, uint64_t seed, const WriterContext& context);

  // Of every stream of this writer, ended ones included.
  std::map<uint64_t, StreamFacts> Facts() const;
  // A new life of the server, which has just said how much of each active stream it holds.
  void Begin(const std::map<uint64_t, uint64_t>& held);
  // Appends as fast as acks allow until the call breaks; its status.  `acked` is called with the
  // number of rows of each reply that were not acked before.
  grpc::Status Run(proto::Replay::Stub* stub, const std::function<void(uint64_t)>& acked);

 private:
  struct Stream {
    uint64_t id = 0;
    uint64_t end_row = 0;  // the stream is to have so many rows
    uint64_t next = 0;     // the first row that was not sent in this life
    uint64_t sent = 0;     // in any life
    uint64_t acked = 0;
    uint32_t acked_crc = 0;
  };
  struct Span {
    uint64_t stream, first_row, num_rows;
  };

  Stream NewStream() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t Draw(uint64_t least, uint64_t most) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // False: the call is broken.
  bool NextMessage(proto::AppendRequest* request);
  std::vector<Span> NextSpans() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool MayGoOn() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  uint64_t SentRows() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // How many rows are newly acked.
  uint64_t HandleAck(uint64_t stream, uint64_t held_rows) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int index_;
  const WriterContext context_;
  mutable absl::Mutex mu_;
  std::mt19937_64 random_ ABSL_GUARDED_BY(mu_);
  std::vector<Stream> streams_ ABSL_GUARDED_BY(mu_);
  size_t next_stream_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<uint64_t, StreamFacts> ended_ ABSL_GUARDED_BY(mu_);
  uint64_t ended_rows_ ABSL_GUARDED_BY(mu_) = 0;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_CHAOS_SHARD_KILL_WRITER_H_
