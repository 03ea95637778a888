#ifndef TROUPE_TESTS_BENCH_REPLAY_FOLLOW_CLIENT_H_
#define TROUPE_TESTS_BENCH_REPLAY_FOLLOW_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "tests/bench/replay/messages.h"
#include "tests/bench/replay/rows.h"
#include "tests/bench/replay/stream_client.h"

namespace troupe {

struct FollowLoad {
  std::string run, table;
  std::shared_ptr<const RowPatterns> patterns;
};

// Follows a table from its oldest row; copies what comes into one batch and checks it.
class FollowClient final : public StreamClient {
 public:
  FollowClient(std::shared_ptr<grpc::Channel> channel, const FollowLoad& load,
               const Measuring* measuring);

  // Waits until the client has all that the shard holds, or the call has ended.
  void AwaitCaughtUp() { caught_up_.WaitForNotification(); }
  // REQUIRES: Await has returned.
  int64_t wrong_rows() const { return wrong_rows_; }
  int64_t wrong_replies() const { return wrong_replies_; }

 private:
  void Receive(const grpc::ByteBuffer& message) override;
  void HandleReceived() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool NextMessage(grpc::ByteBuffer* message) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void HandleEnd() override;

  const FollowLoad load_;
  FollowedBatch batch_;  // of the one read under way
  int64_t wrong_rows_ = 0;
  int64_t wrong_replies_ = 0;
  bool asked_ ABSL_GUARDED_BY(mu_) = false;
  absl::Notification caught_up_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_BENCH_REPLAY_FOLLOW_CLIENT_H_
