#ifndef TROUPE_REPLAY_SERVER_DOORMAN_H_
#define TROUPE_REPLAY_SERVER_DOORMAN_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "replay_server/open_sockets.h"

namespace troupe {

// Tells those for whom there is no room why: takes a connection for a second, and ends each call on
// it with RESOURCE_EXHAUSTED, "N connections, the cap is N".  Only the health service answers.
//
// Of more connections than it can talk to at once the surplus is closed.  Thread-safe, but for its
// end.
class Doorman final : private grpc::CallbackGenericService {
 public:
  // `cap`: on connections, for the message.
  Doorman(int64_t cap, const std::shared_ptr<grpc::ServerCredentials>& credentials);
  ~Doorman() override;

  // Owns `fd` from then on.
  void Take(int listener_fd, int fd);
  // For the health service.
  void SetServing(bool serving);
  uint64_t refused() const { return refused_; }

 private:
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override;

  const int64_t cap_;
  OpenSockets talking_to_;
  std::atomic<uint64_t> refused_{0};  // atomic: read by metrics
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_DOORMAN_H_
