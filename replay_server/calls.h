#ifndef TROUPE_REPLAY_SERVER_CALLS_H_
#define TROUPE_REPLAY_SERVER_CALLS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"
#include "proto/replay.pb.h"

namespace troupe {

class Table;

// Who has made a call.
struct Peer {
  std::string client = {};   // as it says: "troupe-actor@host/123"
  std::string role = {};     // of its certificate
  std::string address = {};  // as gRPC writes it
};

// A streaming call under way.
class Call {
 public:
  explicit Call(Peer peer) : peer_(std::move(peer)) {}
  virtual ~Call() = default;
  // Who has made it and what came of it.  Thread-safe.
  proto::CallDescription Describe();
  // Ends the call with UNAVAILABLE once what it has begun to send is sent.  Thread-safe.
  virtual void Drain() = 0;
  // A learner wants more unrolls by this policy version.  True: the call's writer to `table` is
  // told.  Thread-safe.
  virtual bool RequestUnrolls(const Table* table, uint64_t policy_version) { return false; }
  // The shard's writers are to be turned away, or no longer.  Thread-safe.
  virtual void NoteDraining() {}

 private:
  // Adds what is known beside the peer.
  virtual void DescribeWork(proto::CallDescription* description) = 0;

  const Peer peer_;
  const absl::Time opened_ = absl::Now();
};

// All streaming calls of a shard, at most so many.  Thread-safe.
class CallRegistry final {
 public:
  explicit CallRegistry(int max_calls) : max_calls_(max_calls) {}

  // RESOURCE_EXHAUSTED: there are too many; UNAVAILABLE: draining.
  absl::Status Add(const std::shared_ptr<Call>& call) ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(const Call* call) ABSL_LOCKS_EXCLUDED(mu_);
  // Drains every call and refuses new ones from now on.
  void DrainAll() ABSL_LOCKS_EXCLUDED(mu_);
  // Calls `visit` with each call that is under way now, without the registry's lock.
  void ForEach(absl::FunctionRef<void(Call&)> visit) const ABSL_LOCKS_EXCLUDED(mu_);
  int size() const ABSL_LOCKS_EXCLUDED(mu_);
  int max_calls() const { return max_calls_; }
  // True once no call is left; false after `timeout`.
  bool AwaitNone(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  std::vector<std::shared_ptr<Call>> UnderWay() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int max_calls_;
  mutable absl::Mutex mu_;
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<const Call*, std::weak_ptr<Call>> calls_ ABSL_GUARDED_BY(mu_);
};

// The text of every refusal while the shard shuts down.
absl::Status DrainingError();

// The same code and text.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_CALLS_H_
