// Thousands of connections that say nothing, and a shard that may open few files: those inside go
// on undisturbed, and once the flood is over anybody gets in again.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/integration/replay_server/server_process.h"
#include "tests/integration/replay_server/shard_client.h"

namespace troupe {
namespace {

constexpr int kFlood = 5000;

class Flood final {
 public:
  ~Flood() { End(); }
  void Add(int port) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_GE(fd, 0) << "this test opens " << kFlood << " files: ulimit -n";
    sockets_.push_back(fd);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  void End() {
    for (const int fd : sockets_) close(fd);
    sockets_.clear();
  }

 private:
  std::vector<int> sockets_;
};

bool Answers(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
  proto::DescribeReply reply;
  return proto::Replay::NewStub(channel)->Describe(&context, proto::DescribeRequest(), &reply).ok();
}

// With the server's default cap, of which the limit of open files leaves what it says.
void SurvivesTheFlood(const ServerOptions& options) {
  ServerProcess server(options);
  ASSERT_NE(server.port(), 0);
  TestWriter writer(server.port());
  ASSERT_TRUE(writer.Open());
  const auto inside = Connect(server.port());
  ASSERT_TRUE(Answers(inside));
  Flood flood;
  uint64_t rows = 0;
  for (int i = 0; i < kFlood; ++i) {
    flood.Add(server.port());
    if (i % 500 != 0) continue;
    ASSERT_TRUE(writer.WriteRows(1, rows, 10));
    ASSERT_TRUE(writer.AwaitHeld(1, rows += 10));
    ASSERT_TRUE(Answers(inside));
  }
  flood.End();
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (!Answers(Connect(server.port()))) {
    ASSERT_LT(absl::Now(), deadline) << "nobody gets in any more";
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_EQ(writer.held(1), rows);
}

TEST(ConnectionFloodTest, FiveThousandIdleConnectionsAgainstACapDisturbNobody) {
  const TempDir dir;
  SurvivesTheFlood({.data_dir = dir.File("data"),
                    .capacity_rows = 1024,
                    .flags = {"--set=replay_server.max_connections=1000"}});
}

TEST(ConnectionFloodTest, AShardThatMayOpenFewFilesNeverStopsAccepting) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_GE(before.rlim_cur, kFlood + 200) << "this test opens " << kFlood << " files";
  const TempDir dir;
  const std::string program = dir.File("few_files");
  // The limit is the shard's alone.
  FILE* file = fopen(program.c_str(), "w");
  ASSERT_NE(file, nullptr);
  fprintf(file, "#!/bin/sh\nulimit -n 256\nexec %s \"$@\"\n", TROUPE_REPLAY_SERVER);
  fclose(file);
  ASSERT_EQ(chmod(program.c_str(), 0700), 0);
  SurvivesTheFlood({.program = program, .data_dir = dir.File("data"), .capacity_rows = 1024});
}

}  // namespace
}  // namespace troupe
