#ifndef TROUPE_REPLAY_SERVER_SERVER_H_
#define TROUPE_REPLAY_SERVER_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "replay_server/doorman.h"
#include "replay_server/listener.h"
#include "replay_server/open_sockets.h"
#include "replay_server/services.h"
#include "replay_server/shard.h"

namespace troupe {

// A shard behind a port, with gRPC's health service: SERVING once the shard has recovered, until it
// is stopped.  One thread starts and stops it.
//
// It takes so many connections as its options say, or as descriptors allow; the others are told so
// (RESOURCE_EXHAUSTED) or closed, and no number of them keeps it from accepting later ones.
class Server final {
 public:
  // Listens on `address` (host:port, port 0: any free one), then recovers the shard.
  // UNAVAILABLE: the address cannot be had.
  // FAILED_PRECONDITION: as Credentials::ForServer.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const std::string& address, const ShardOptions& options,
      const Credentials& credentials = *Credentials::Plaintext());
  ~Server();

  int port() const { return listener_->port(); }
  Shard& shard() { return shard_; }

  // Connections open now, the most there may be, and those ever refused.
  int64_t connections() { return connections_.Count(); }
  int64_t max_connections() const { return connections_.most(); }
  uint64_t connections_refused() const { return doorman_->refused(); }

  // Takes no new calls, ends those there are, and cancels what is not ended within `patience`.
  void Stop(absl::Duration patience);

 private:
  Server(const ShardOptions& options, bool has_roles);
  absl::Status Listen(const std::string& address, const Credentials& credentials);
  void StartServer(const std::shared_ptr<grpc::ServerCredentials>& credentials);
  void SetServing(bool serving);
  // Owns `fd` from then on.
  void Take(int listener_fd, int fd);

  Shard shard_;
  ReplayService replay_service_;
  WeightsService weights_service_;
  OpenSockets connections_;
  std::unique_ptr<Doorman> doorman_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Listener> listener_;
};

// Asks the health service at `address` whether the shard serves.  UNAVAILABLE: it does not.
absl::Status CheckHealth(const std::string& address, absl::Duration timeout,
                         const Credentials& credentials);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SERVER_H_
