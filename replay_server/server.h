#ifndef TROUPE_REPLAY_SERVER_SERVER_H_
#define TROUPE_REPLAY_SERVER_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/credentials.h"
#include "grpcpp/server.h"
#include "replay_server/services.h"
#include "replay_server/shard.h"

namespace troupe {

// A shard behind a port, with gRPC's health service: SERVING once the shard has recovered, until it
// is stopped.  One thread starts and stops it.
class Server final {
 public:
  // Listens on `address` (host:port, port 0: any free one), then recovers the shard.
  // UNAVAILABLE: the address cannot be had.
  // FAILED_PRECONDITION: as Credentials::ForServer.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const std::string& address, const ShardOptions& options,
      const Credentials& credentials = *Credentials::Plaintext());
  ~Server();

  int port() const { return port_; }
  Shard& shard() { return shard_; }

  // Takes no new calls, ends those there are, and cancels what is not ended within `patience`.
  void Stop(absl::Duration patience);

 private:
  Server(const ShardOptions& options, bool has_roles);
  absl::Status Listen(const std::string& address, const Credentials& credentials);

  Shard shard_;
  ReplayService replay_service_;
  WeightsService weights_service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// Asks the health service at `address` whether the shard serves.  UNAVAILABLE: it does not.
absl::Status CheckHealth(const std::string& address, absl::Duration timeout,
                         const Credentials& credentials);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SERVER_H_
