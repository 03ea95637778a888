#include "replay_server/doorman.h"

#include <unistd.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "grpcpp/health_check_service_interface.h"

namespace troupe {
namespace {

constexpr int64_t kMostAtOnce = 64;
constexpr int kMostMs = 1000;

class Refusal final : public grpc::ServerGenericBidiReactor {
 public:
  explicit Refusal(int64_t cap) {
    Finish(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                        absl::StrCat(cap, " connections, the cap is ", cap,
                                     " (replay_server.max_connections); try again later")));
  }
  void OnDone() override { delete this; }
};

}  // namespace

Doorman::Doorman(int64_t cap, const std::shared_ptr<grpc::ServerCredentials>& credentials)
    : cap_(cap), talking_to_(kMostAtOnce) {
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, kMostMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, 0);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kMostMs);
  builder.RegisterCallbackGenericService(this);
  acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
  server_ = builder.BuildAndStart();
}

Doorman::~Doorman() {
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

void Doorman::Take(int listener_fd, int fd) {
  ++refused_;
  if (!talking_to_.Admit(fd)) {
    close(fd);
    return;
  }
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
  connection.listener_fd = listener_fd;
  connection.fd = fd;
  acceptor_->HandleNewConnection(&connection);
}

void Doorman::SetServing(bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(serving);
}

grpc::ServerGenericBidiReactor* Doorman::CreateReactor(grpc::GenericCallbackServerContext*) {
  return new Refusal(cap_);
}

}  // namespace troupe
