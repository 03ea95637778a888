#ifndef TROUPE_TESTS_BENCH_REPLAY_APPEND_CLIENT_H_
#define TROUPE_TESTS_BENCH_REPLAY_APPEND_CLIENT_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "proto/replay.pb.h"
#include "tests/bench/replay/rows.h"
#include "tests/bench/replay/stream_client.h"

namespace troupe {

struct AppendLoad {
  std::string run, table;
  std::shared_ptr<const RowPatterns> patterns;
  int64_t message_bytes = 65536;   // of rows
  int64_t runs = 1;                // streams that share each message
  int64_t window_bytes = 4 << 20;  // unacked
  double rows_per_second = 0;      // 0: as many as are taken
  int64_t rows = 0;  // after so many acked rows the call ends by itself; 0: it goes on
};

// Appends rows of new streams as fast as they are acked; or at a pace, if Wake is called often.
class AppendClient final : public StreamClient {
 public:
  AppendClient(std::shared_ptr<grpc::Channel> channel, const AppendLoad& load,
               const Measuring* measuring);

 private:
  struct Unacked {
    uint64_t end_row;  // of the last stream once it is acked
    int64_t rows;
    int64_t bytes;
    Clock::time_point sent;
  };

  void Receive(const grpc::ByteBuffer& message) override;
  void HandleReceived() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool NextMessage(grpc::ByteBuffer* message) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Rows of each stream in the next message; 0: none now.
  int64_t RowsDue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const AppendLoad load_;
  std::vector<RowSource> streams_ ABSL_GUARDED_BY(mu_);
  proto::AppendReply reply_;  // scratch of the one read under way
  bool opening_ ABSL_GUARDED_BY(mu_) = true;
  bool opened_ ABSL_GUARDED_BY(mu_) = false;
  bool held_back_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<Unacked> unacked_ ABSL_GUARDED_BY(mu_);
  int64_t unacked_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t sent_rows_ ABSL_GUARDED_BY(mu_) = 0;
  Clock::time_point opened_at_ ABSL_GUARDED_BY(mu_);
};

}  // namespace troupe

#endif  // TROUPE_TESTS_BENCH_REPLAY_APPEND_CLIENT_H_
