#ifndef TROUPE_TESTS_BENCH_REPLAY_TRANSPORT_H_
#define TROUPE_TESTS_BENCH_REPLAY_TRANSPORT_H_

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <memory>

#include "grpcpp/channel.h"
#include "grpcpp/support/slice.h"
#include "tests/bench/replay/stream_client.h"

namespace troupe {

// What gRPC alone can carry: raw messages of one size on a bidirectional call, with nothing done to
// them on either side, as the measure of what a shard makes of it.

// A process of its own that takes what is sent to it, answering each message with `reply_bytes`
// bytes.  It ends with this process.  REQUIRES: nothing of gRPC was used in this process yet.
struct TransportServer {
  pid_t pid;
  int port;
};
TransportServer ForkTransportServer(int64_t reply_bytes);

struct TransportLoad {
  int64_t message_bytes = 65536;
  int64_t in_flight = 64;  // messages without their reply
};

// Keeps messages in flight.  Its tally counts replies.
class TransportClient final : public StreamClient {
 public:
  TransportClient(std::shared_ptr<grpc::Channel> channel, const TransportLoad& load,
                  const Measuring* measuring);

 private:
  void Receive(const grpc::ByteBuffer& message) override {}
  void HandleReceived() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool NextMessage(grpc::ByteBuffer* message) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const TransportLoad load_;
  const grpc::Slice payload_;
  std::deque<Clock::time_point> sent_ ABSL_GUARDED_BY(mu_);
};

}  // namespace troupe

#endif  // TROUPE_TESTS_BENCH_REPLAY_TRANSPORT_H_
