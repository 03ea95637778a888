// Who is let in, and what they may call: every kind of peer against every method.
#include "replay_server/roles.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "actor/row_writer.h"
#include "replay_server/server.h"
#include "tests/integration/replay_server/shard_client.h"
#include "tests/integration/security/certificates.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

enum class Fate { kAdmitted, kDenied, kNoConnection };

std::ostream& operator<<(std::ostream& out, Fate fate) {
  return out << (fate == Fate::kAdmitted ? "admitted"
                 : fate == Fate::kDenied ? "denied"
                                         : "no connection");
}

// What the issue promises, written down once more: an actor may append and subscribe; a learner
// sample, follow and publish; an operator all.
const std::map<std::string, std::set<std::string>>& Promised() {
  static const auto* const promised = new std::map<std::string, std::set<std::string>>{
      {"troupe.proto.Replay/Append", {"actor"}},
      {"troupe.proto.Replay/Sample", {"learner"}},
      {"troupe.proto.Replay/UpdatePriorities", {"learner"}},
      {"troupe.proto.Replay/Follow", {"learner"}},
      {"troupe.proto.Replay/RequestUnrolls", {"learner"}},
      {"troupe.proto.Replay/Describe", {"learner"}},
      {"troupe.proto.Replay/Identify", {"actor", "learner"}},
      {"troupe.proto.Replay/Backup", {}},
      {"troupe.proto.Replay/Drain", {}},
      {"troupe.proto.Weights/Publish", {"learner"}},
      {"troupe.proto.Weights/Subscribe", {"actor", "learner"}}};
  return *promised;
}

Fate ExpectedFate(const std::string& role, const std::string& method) {
  if (role == "operator" || Promised().at(method).count(role) == 1) return Fate::kAdmitted;
  return Fate::kDenied;
}

// The end of a call that sends one message, which no method can make sense of.
grpc::Status Call(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, "/" + method, &queue);
  const auto wait = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  call->StartCall(nullptr);
  if (wait()) {
    // Field 1, the run of most requests, longer than a run's name may be.
    const grpc::Slice slice("\x0a\xac\x02" + std::string(300, 'x'));
    call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
    wait();
    grpc::ByteBuffer reply;
    do {
      call->Read(&reply, nullptr);
    } while (wait());
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  wait();
  return status;
}

Fate FateOf(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      return Fate::kNoConnection;
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED:
      return Fate::kDenied;
    default:
      return Fate::kAdmitted;
  }
}

class RolesTest : public testing::Test {
 protected:
  RolesTest() {
    authority_.Issue({.common_name = "replay_server", .dns_name = "localhost"}, Dir("server"));
    server_credentials_ = Credentials::MutualTls(Dir("server")).value();
    options_.data_dir = dir_.File("data");
    options_.tables.push_back({.name = "replay", .path = "", .capacity_rows = 128});
    server_ = Server::Start("127.0.0.1:0", options_, *server_credentials_).value();
  }

  std::string Dir(const std::string& name) const { return dir_.File("tls_" + name); }
  std::string target() const { return absl::StrCat("localhost:", server_->port()); }

  // A new connection by the certificate in a folder.
  std::shared_ptr<grpc::Channel> Connect(const std::string& name) const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto credentials = Credentials::MutualTls(Dir(name)).value();
    return grpc::CreateCustomChannel(target(), credentials->ForChannel(target()).value(),
                                     arguments);
  }
  void ExpectNoConnection(const std::shared_ptr<grpc::Channel>& channel, const char* who) const {
    for (const auto& [method, roles] : Promised()) {
      EXPECT_EQ(FateOf(Call(channel, method)), Fate::kNoConnection) << who << " " << method;
    }
  }
  void AwaitFate(const std::string& name, Fate fate) const {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (FateOf(Call(Connect(name), "troupe.proto.Weights/Subscribe")) != fate) {
      ASSERT_LT(absl::Now(), deadline) << "waited in vain for " << fate;
      absl::SleepFor(absl::Milliseconds(50));
    }
  }

  TempDir dir_;
  const CertificateAuthority authority_;
  ShardOptions options_;
  std::shared_ptr<const Credentials> server_credentials_;
  std::unique_ptr<Server> server_;
};

TEST_F(RolesTest, ThePromiseNamesEveryMethod) {
  std::set<std::string> methods;
  for (const char* service : {"troupe.proto.Replay", "troupe.proto.Weights"}) {
    const auto* const descriptor =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(service);
    ASSERT_NE(descriptor, nullptr);
    for (int i = 0; i < descriptor->method_count(); ++i) {
      methods.insert(absl::StrCat(service, "/", descriptor->method(i)->name()));
    }
  }
  std::set<std::string> promised;
  for (const auto& [method, roles] : Promised()) promised.insert(method);
  EXPECT_EQ(promised, methods);
}

TEST_F(RolesTest, EachRoleMayCallWhatItIsPromisedAndNothingElse) {
  for (const std::string role : {"actor", "learner", "operator", "replay_server", "actor,learner",
                                 "Operator", "operator ", "troupe"}) {
    authority_.Issue({.common_name = role}, Dir("peer"));
    const auto channel = Connect("peer");
    for (const auto& [method, roles] : Promised()) {
      const grpc::Status status = Call(channel, method);
      EXPECT_EQ(FateOf(status), ExpectedFate(role, method))
          << role << " " << method << ": " << status.error_message();
    }
  }
}

TEST_F(RolesTest, ADenialNamesRoleAndMethod) {
  authority_.Issue({.common_name = "actor"}, Dir("peer"));
  EXPECT_THAT(Call(Connect("peer"), "troupe.proto.Replay/Sample").error_message(),
              HasSubstr("role 'actor' may not call Sample"));
}

TEST_F(RolesTest, NobodyGetsInWithoutACertificateThatIsValidNow) {
  const CertificateAuthority other;
  authority_.Issue({.common_name = "operator", .valid_from = -7200, .valid_until = -3600},
                   Dir("expired"));
  authority_.Issue({.common_name = "operator", .valid_from = 3600, .valid_until = 7200},
                   Dir("early"));
  other.Issue({.common_name = "operator"}, Dir("other"));
  // It trusts the server, but not the server it.
  std::filesystem::copy_file(Dir("server") + "/ca.pem", Dir("other") + "/ca.pem",
                             std::filesystem::copy_options::overwrite_existing);
  for (const char* who : {"expired", "early", "other"}) ExpectNoConnection(Connect(who), who);
}

TEST_F(RolesTest, NobodyGetsInWithoutACertificateOrInPlaintext) {
  std::ifstream file(Dir("server") + "/ca.pem");
  grpc::SslCredentialsOptions options;
  options.pem_root_certs.assign(std::istreambuf_iterator<char>(file), {});
  ExpectNoConnection(grpc::CreateChannel(target(), grpc::SslCredentials(options)), "none");
  ExpectNoConnection(grpc::CreateChannel(target(), grpc::InsecureChannelCredentials()),
                     "plaintext");
}

TEST_F(RolesTest, AServerWithoutTheHostsNameInItsCertificateIsNotTalkedTo) {
  server_ = nullptr;
  authority_.Issue({.common_name = "replay_server", .dns_name = "elsewhere"}, Dir("elsewhere"));
  authority_.Issue({.common_name = "operator"}, Dir("peer"));
  for (const char* name : {"elsewhere", "peer"}) {
    const auto credentials = Credentials::MutualTls(Dir(name)).value();
    server_ = Server::Start("127.0.0.1:0", options_, *credentials).value();
    ExpectNoConnection(Connect("peer"), name);
    server_ = nullptr;
  }
}

// Is a handshake with a TLS of at most this version done?  The client has a good certificate.
bool HandshakeSucceeds(int port, const std::string& tls_dir, int version) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()),
                                                                  SSL_CTX_free);
  SSL_CTX_set_security_level(context.get(), 0);  // or this side refuses the old ones
  SSL_CTX_set_min_proto_version(context.get(), version);
  SSL_CTX_set_max_proto_version(context.get(), version);
  EXPECT_EQ(SSL_CTX_use_certificate_file(context.get(), (tls_dir + "/cert.pem").c_str(),
                                         SSL_FILETYPE_PEM),
            1);
  EXPECT_EQ(
      SSL_CTX_use_PrivateKey_file(context.get(), (tls_dir + "/key.pem").c_str(), SSL_FILETYPE_PEM),
      1);
  const unsigned char h2[] = {2, 'h', '2'};
  SSL_CTX_set_alpn_protos(context.get(), h2, sizeof(h2));
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::unique_ptr<SSL, decltype(&SSL_free)> ssl(SSL_new(context.get()), SSL_free);
  SSL_set_fd(ssl.get(), fd);
  const bool done = SSL_connect(ssl.get()) == 1;
  close(fd);
  return done;
}

TEST_F(RolesTest, OldTlsIsRefused) {
  authority_.Issue({.common_name = "operator"}, Dir("peer"));
  EXPECT_TRUE(HandshakeSucceeds(server_->port(), Dir("peer"), TLS1_3_VERSION));
  EXPECT_TRUE(HandshakeSucceeds(server_->port(), Dir("peer"), TLS1_2_VERSION));
  EXPECT_FALSE(HandshakeSucceeds(server_->port(), Dir("peer"), TLS1_1_VERSION));
  EXPECT_FALSE(HandshakeSucceeds(server_->port(), Dir("peer"), TLS1_VERSION));
}

TEST_F(RolesTest, CertificatesAreReplacedWithoutARestart) {
  authority_.Issue({.common_name = "actor"}, Dir("old"));
  const CertificateAuthority next;
  next.Issue({.common_name = "actor"}, Dir("new"));
  const auto standing = Connect("old");
  AwaitFate("old", Fate::kAdmitted);
  ASSERT_EQ(FateOf(Call(standing, "troupe.proto.Weights/Subscribe")), Fate::kAdmitted);
  ASSERT_EQ(FateOf(Call(Connect("new"), "troupe.proto.Weights/Subscribe")), Fate::kNoConnection);
  next.Issue({.common_name = "replay_server", .dns_name = "localhost"}, Dir("server"));
  AwaitFate("new", Fate::kAdmitted);
  AwaitFate("old", Fate::kNoConnection);
  EXPECT_EQ(FateOf(Call(standing, "troupe.proto.Weights/Subscribe")), Fate::kAdmitted);
}

TEST_F(RolesTest, ACallThatStandsGoesOnWhenCertificatesAreReplaced) {
  authority_.Issue({.common_name = "actor"}, Dir("old"));
  const auto stub = proto::Replay::NewStub(Connect("old"));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(120));
  const auto call = stub->Append(&context);
  ASSERT_TRUE(call->Write(TestWriter::OpenRequest()));
  proto::AppendReply reply;
  ASSERT_TRUE(call->Read(&reply));
  const CertificateAuthority next;
  next.Issue({.common_name = "actor"}, Dir("new"));
  next.Issue({.common_name = "replay_server", .dns_name = "localhost"}, Dir("server"));
  AwaitFate("new", Fate::kAdmitted);
  AwaitFate("old", Fate::kNoConnection);
  proto::AppendRequest request;
  proto::RowRun* const run = request.add_runs();
  run->set_stream(7);
  run->set_rows(Rows(7, 0, 10));
  ASSERT_TRUE(call->Write(request));
  ASSERT_TRUE(call->Read(&reply));
  ASSERT_EQ(reply.acks_size(), 1);
  EXPECT_EQ(reply.acks(0).held_rows(), 10);
  call->WritesDone();
  EXPECT_FALSE(call->Read(&reply));
  EXPECT_TRUE(call->Finish().ok());
}

TEST_F(RolesTest, AClientThatRunsConnectsAnewWithItsNewCertificate) {
  authority_.Issue({.common_name = "actor"}, Dir("client"));
  authority_.Issue({.common_name = "actor"}, Dir("old"));
  RowWriterOptions options;
  options.shards = {target()};
  options.run = "run";
  options.table = "replay";
  options.max_delay = absl::Milliseconds(1);
  options.credentials = Credentials::MutualTls(Dir("client")).value();
  const auto writer = RowWriter::Create(options, TestLayout()).value();
  const auto append = [&] { return writer->Append(0, [](absl::Span<char>) {}).status(); };
  ASSERT_TRUE(append().ok());
  ASSERT_TRUE(writer->Flush(absl::Now() + absl::Minutes(2)).ok());
  const CertificateAuthority next;
  next.Issue({.common_name = "actor"}, Dir("new"));
  next.Issue({.common_name = "actor"}, Dir("client"));
  next.Issue({.common_name = "replay_server", .dns_name = "localhost"}, Dir("server"));
  AwaitFate("new", Fate::kAdmitted);
  // The shard goes and comes back; neither process reads its certificates for it.
  const int port = server_->port();
  server_ = nullptr;
  server_ = Server::Start(absl::StrCat("127.0.0.1:", port), options_, *server_credentials_).value();
  AwaitFate("old", Fate::kNoConnection);
  ASSERT_TRUE(append().ok());
  const absl::Status flushed = writer->Flush(absl::Now() + absl::Minutes(2));
  EXPECT_TRUE(flushed.ok()) << flushed;
  EXPECT_EQ(writer->stats().rows_acked, 2);
}

TEST(CredentialsTest, AMissingFileIsNamed) {
  const TempDir dir;
  const absl::Status status = Credentials::MutualTls(dir.File("none")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr(dir.File("none") + "/ca.pem"));
}

}  // namespace
}  // namespace troupe
