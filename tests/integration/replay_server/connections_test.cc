// A shard's cap on connections: who is beyond it hears so, and nobody else is harmed.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/channel.h"
#include "replay_server/server.h"
#include "tests/integration/replay_server/shard_client.h"
#include "tests/integration/security/certificates.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

constexpr int kCap = 8;

// A connection that says nothing; closed at the end.
class IdleConnection final {
 public:
  explicit IdleConnection(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~IdleConnection() { close(fd_); }
  IdleConnection(const IdleConnection&) = delete;
  IdleConnection& operator=(const IdleConnection&) = delete;

  // Waits until the other side has closed it.
  void AwaitEnd() const {
    char byte = 0;
    while (recv(fd_, &byte, 1, 0) > 0) {
    }
  }

 private:
  const int fd_;
};

// With and without TLS.
class ConnectionsTest : public ::testing::TestWithParam<bool> {
 protected:
  ConnectionsTest() {
    authority_.Issue({.common_name = "replay_server", .dns_name = "localhost"}, Dir("server"));
    authority_.Issue({.common_name = "operator"}, Dir("peer"));
    options_.data_dir = dir_.File("data");
    options_.tables.push_back({.name = "replay", .path = "", .capacity_rows = 128});
    options_.max_connections = kCap;
    server_ = Server::Start("127.0.0.1:0", options_, *Of("server")).value();
  }

  std::string Dir(const std::string& name) const { return dir_.File("tls_" + name); }
  std::shared_ptr<const Credentials> Of(const std::string& name) const {
    return GetParam() ? Credentials::MutualTls(Dir(name)).value() : Credentials::Plaintext();
  }
  std::string target() const { return absl::StrCat("localhost:", server_->port()); }

  // What Describe on a connection of its own comes to.
  grpc::Status Describe() {
    peer_ = Of("peer");
    return Describe(MakeChannel(target(), *peer_).value());
  }
  static grpc::Status Describe(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Minutes(1)));
    proto::DescribeReply reply;
    return proto::Replay::NewStub(channel)->Describe(&context, proto::DescribeRequest(), &reply);
  }
  void Fill() {
    while (std::ssize(idle_) < kCap) {
      idle_.push_back(std::make_unique<IdleConnection>(server_->port()));
    }
    while (server_->connections() < kCap) absl::SleepFor(absl::Milliseconds(1));
  }

  TempDir dir_;
  const CertificateAuthority authority_;
  ShardOptions options_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<const Credentials> peer_;
  std::vector<std::unique_ptr<IdleConnection>> idle_;
};

TEST_P(ConnectionsTest, OneTooManyIsToldOfTheCap) {
  Fill();
  const grpc::Status status = Describe();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("8 connections, the cap is 8"));
  EXPECT_EQ(server_->connections_refused(), 1);
}

TEST_P(ConnectionsTest, AConnectionThatEndsMakesRoom) {
  Fill();
  EXPECT_FALSE(Describe().ok());
  idle_.pop_back();
  while (server_->connections() == kCap) absl::SleepFor(absl::Milliseconds(1));
  const grpc::Status status = Describe();
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_P(ConnectionsTest, AClientThatWasRefusedGetsInOnceThereIsRoom) {
  Fill();
  peer_ = Of("peer");
  const auto channel = MakeChannel(target(), *peer_).value();
  EXPECT_EQ(Describe(channel).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  idle_.clear();
  // The doorman hangs up, and the next attempt comes to the shard.
  while (!Describe(channel).ok()) absl::SleepFor(absl::Milliseconds(1));
}

TEST_P(ConnectionsTest, WhoIsInStaysUnharmedWhileOthersAreRefused) {
  peer_ = Of("peer");
  const auto inside = MakeChannel(target(), *peer_).value();
  ASSERT_TRUE(Describe(inside).ok());
  idle_.clear();
  for (int i = 0; i < 300; ++i) {
    idle_.push_back(std::make_unique<IdleConnection>(server_->port()));
  }
  for (size_t i = kCap; i < idle_.size(); ++i) idle_[i]->AwaitEnd();
  EXPECT_TRUE(Describe(inside).ok());
  EXPECT_EQ(server_->connections(), kCap);
  EXPECT_EQ(server_->connections_refused(), 300 - kCap + 1);
}

TEST_P(ConnectionsTest, AFullShardIsHealthy) {
  Fill();
  const absl::Status status = CheckHealth(target(), absl::Minutes(1), *Of("peer"));
  EXPECT_TRUE(status.ok()) << status;
}

INSTANTIATE_TEST_SUITE_P(Plaintext, ConnectionsTest, testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Tls, ConnectionsTest, testing::Values(true));

TEST(ListenerTest, APortThatIsTakenIsRefusedByName) {
  const auto first = Listener::Bind("127.0.0.1:0").value();
  const std::string address = absl::StrCat("127.0.0.1:", first->port());
  const auto second = Listener::Bind(address);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr("cannot listen on " + address));
}

TEST(ListenerTest, AnyAddressMeansBothFamilies) {
  for (const char* address : {"0.0.0.0:0", "[::]:0"}) {
    const auto listener = Listener::Bind(address).value();
    EXPECT_FALSE(Listener::Bind(absl::StrCat("127.0.0.1:", listener->port())).ok()) << address;
  }
}

TEST(ListenerTest, AnAddressOfAnotherMachineIsRefused) {
  EXPECT_EQ(Listener::Bind("192.0.2.1:0").status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace troupe
