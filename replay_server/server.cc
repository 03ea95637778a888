#include "replay_server/server.h"

#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"

namespace troupe {
namespace {

// Room for what protobuf adds around max_message_bytes of rows.
constexpr int64_t kMessageOverheadBytes = 65536;

// For connections without calls.
constexpr absl::Duration kHangUpPatience = absl::Milliseconds(200);

// Below this gRPC ends calls of even a few writers for want of memory, and reads in small pieces.
constexpr int64_t kLeastReadAheadBytes = 32 << 20;

// gRPC sizes each connection's window by the bandwidth that it finds, 4 MB a writer on this
// machine, which no budget of ours knows: 200 of them took 820 MB.  Under a quota the windows
// shrink as it fills; without the probing they would be 64 KB, which halves the rate here and costs
// far more over a longer way.
void SetReadAhead(int64_t message_budget_bytes, grpc::ServerBuilder* builder) {
  grpc::ResourceQuota quota("troupe_replay_server");
  quota.Resize(static_cast<size_t>(std::max(message_budget_bytes / 2, kLeastReadAheadBytes)));
  builder->SetResourceQuota(quota);
}

// How many connections a shard without a cap of its own takes.
constexpr int64_t kDefaultMaxConnections = 8192;
// Descriptors are for files, gRPC's own needs and a doorman, too.
constexpr double kPartForConnections = 0.75;
// Of a connection that says nothing.
constexpr int kHandshakeTimeoutMs = 20'000;

// `wanted` 0: the default.
int64_t ConnectionCap(int64_t wanted) {
  rlimit limit;
  int64_t most = std::numeric_limits<int64_t>::max();
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    most = static_cast<int64_t>(kPartForConnections * static_cast<double>(limit.rlim_cur));
  }
  if (wanted > most) {
    spdlog::warn("{} connections are taken, not {}: the process may open {} files", most, wanted,
                 limit.rlim_cur);
  }
  return std::min(most, wanted == 0 ? kDefaultMaxConnections : wanted);
}

void SetTransportOptions(grpc::ServerBuilder* builder) {
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  // Clients ping each 20 s, calls under way or not; a client that vanished is noticed as soon.
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  builder->AddChannelArgument(GRPC_ARG_TCP_READ_CHUNK_SIZE, 128 << 10);
  builder->AddChannelArgument(GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, 128 << 10);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_WRITE_BUFFER_SIZE, 256 << 10);
}

}  // namespace

Server::Server(const ShardOptions& options, bool has_roles)
    : shard_(options),
      replay_service_(&shard_, has_roles),
      weights_service_(&shard_, has_roles),
      connections_(ConnectionCap(options.max_connections)) {}

Server::~Server() {
  if (server_ != nullptr) Stop(absl::ZeroDuration());
}

absl::Status Server::Listen(const std::string& address, const Credentials& credentials) {
  const auto of_server = credentials.ForServer(address);
  if (!of_server.ok()) return of_server.status();
  auto listener = Listener::Bind(address);
  if (!listener.ok()) return listener.status();
  listener_ = *std::move(listener);
  grpc::EnableDefaultHealthCheckService(true);
  StartServer(*of_server);
  doorman_ = std::make_unique<Doorman>(connections_.most(), *of_server);
  SetServing(false);
  listener_->Start([this](int listener_fd, int fd) { Take(listener_fd, fd); });
  return absl::OkStatus();
}

void Server::StartServer(const std::shared_ptr<grpc::ServerCredentials>& credentials) {
  grpc::ServerBuilder builder;
  SetTransportOptions(&builder);
  SetReadAhead(shard_.options().message_budget_bytes, &builder);
  builder.SetMaxReceiveMessageSize(
      static_cast<int>(std::min<int64_t>(shard_.options().max_message_bytes + kMessageOverheadBytes,
                                         std::numeric_limits<int>::max())));
  acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
  builder.RegisterService(&replay_service_);
  builder.RegisterService(&weights_service_);
  server_ = builder.BuildAndStart();
}

void Server::SetServing(bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(serving);
  doorman_->SetServing(serving);
}

void Server::Take(int listener_fd, int fd) {
  if (!connections_.Admit(fd)) {
    doorman_->Take(listener_fd, fd);
    return;
  }
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
  connection.listener_fd = listener_fd;
  connection.fd = fd;
  acceptor_->HandleNewConnection(&connection);
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const std::string& address,
                                                      const ShardOptions& options,
                                                      const Credentials& credentials) {
  std::unique_ptr<Server> server(new Server(options, credentials.authenticates()));
  if (absl::Status status = server->Listen(address, credentials); !status.ok()) return status;
  if (absl::Status status = server->shard_.Recover(); !status.ok()) return status;
  server->SetServing(true);
  return server;
}

void Server::Stop(absl::Duration patience) {
  if (server_ == nullptr) return;
  SetServing(false);
  shard_.Drain();
  shard_.calls().AwaitNone(patience);
  listener_->Stop();
  // gRPC would wait for the last client to hang up, which one that is stopped never does.
  const absl::Duration rest = std::min(patience, kHangUpPatience);
  server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(rest));
  server_->Wait();
  server_ = nullptr;
}

absl::Status CheckHealth(const std::string& address, absl::Duration timeout,
                         const Credentials& credentials) {
  const auto of_channel = credentials.ForChannel(address);
  if (!of_channel.ok()) return of_channel.status();
  // grpc.health.v1, by hand: the request is empty, the reply's field 1 is 1 for SERVING.
  grpc::GenericStub stub(grpc::CreateChannel(address, *of_channel));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout));
  grpc::CompletionQueue queue;
  const grpc::ByteBuffer request(nullptr, 0);
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  grpc::ByteBuffer reply;
  grpc::Status status;
  call->Finish(&reply, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  if (!status.ok()) {
    return absl::UnavailableError(
        absl::StrCat("no health from ", address, ": ", status.error_message()));
  }
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (reply.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) bytes.append(slice.begin(), slice.end());
  }
  if (bytes == absl::string_view("\x08\x01", 2)) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(address, " is up but not serving"));
}

}  // namespace troupe
