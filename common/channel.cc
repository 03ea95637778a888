#include "common/channel.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/support/channel_arguments.h"

namespace troupe {
namespace {

constexpr int kKeepaliveMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
// gRPC's own pause between connection attempts stays below ours, which decide.
constexpr int kFirstReconnectMs = 20;
constexpr int kLastReconnectMs = 250;
// How long one attempt may take.
constexpr int kConnectTimeoutMs = 5'000;
constexpr int kIoBufferBytes = 256 << 10;
constexpr int kMaxReplyBytes = 1 << 30;

// How a shard's description names this process: PROGRAM@HOST/PROCESS.
std::string ClientName() {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  return absl::StrCat(program_invocation_short_name, "@", host, "/", getpid());
}

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetUserAgentPrefix(ClientName());
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLastReconnectMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
  // Without this, channels to one target share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_TCP_READ_CHUNK_SIZE, kIoBufferBytes);
  arguments.SetInt(GRPC_ARG_HTTP2_WRITE_BUFFER_SIZE, kIoBufferBytes);
  arguments.SetMaxReceiveMessageSize(kMaxReplyBytes);
  return arguments;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& target,
                                                           const Credentials& credentials,
                                                           const std::string& address) {
  const auto of_channel = credentials.ForChannel(target);
  if (!of_channel.ok()) return of_channel.status();
  grpc::ChannelArguments arguments = Arguments();
  if (address.empty() || address == target) {
    return grpc::CreateCustomChannel(target, *of_channel, arguments);
  }
  if (credentials.authenticates()) {
    arguments.SetSslTargetNameOverride(target.substr(0, target.rfind(':')));
  }
  return grpc::CreateCustomChannel(address, *of_channel, arguments);
}

absl::Status FromGrpc(const grpc::Status& status, absl::string_view what,
                      absl::string_view target) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      absl::StrCat(what, " ", target, ": ", status.error_message()));
}

bool IsPermanent(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kUnimplemented:
      return true;
    default:
      return false;
  }
}

Backoff::Backoff(absl::Duration min, absl::Duration max, uint64_t seed)
    : min_(min), max_(std::max(min, max)), next_(min), random_(seed) {}

absl::Duration Backoff::Next() {
  const absl::Duration delay = next_ * std::uniform_real_distribution<double>(0.5, 1.0)(random_);
  next_ = std::min(next_ * 2, max_);
  return delay;
}

}  // namespace troupe
