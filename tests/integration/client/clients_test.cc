// The clients against the real server program, killed at moments that nobody chose.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "actor/row_writer.h"
#include "common/crc32c.h"
#include "common/replay_client.h"
#include "common/snapshot_client.h"
#include "common/version.h"
#include "grpcpp/create_channel.h"
#include "proto/replay.grpc.pb.h"
#include "tests/unit/client/small_layout.h"

extern char** environ;

namespace troupe {
namespace {

absl::Time Soon() { return absl::Now() + absl::Minutes(2); }

// A shard of its own process, data directory and port; both outlive its lives.
class ShardProcess final {
 public:
  ShardProcess() {
    char name[] = "/tmp/troupe_clients_XXXXXX";
    dir_ = mkdtemp(name);
    Start("127.0.0.1:0");
  }
  ~ShardProcess() {
    Kill();
    std::filesystem::remove_all(dir_);
  }

  std::string target() const { return "127.0.0.1:" + std::to_string(port_); }

  void Kill() {
    if (pid_ == 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  void Restart() { Start(target()); }

 private:
  void Start(const std::string& listen) {
    const std::string port_file = dir_ + "/port";
    unlink(port_file.c_str());
    std::vector<std::string> arguments = {TROUPE_REPLAY_SERVER,
                                          "--listen=" + listen,
                                          "--data_dir=" + dir_ + "/data",
                                          "--port_file=" + port_file,
                                          "--log_level=error",
                                          "--set",
                                          "run=test",
                                          "--set",
                                          "tables.name=replay",
                                          "--set",
                                          "tables.capacity_rows=1000000",
                                          "--set",
                                          "learner.sac.random_steps=1",
                                          "--set",
                                          "tables.rate_limiter.samples_per_insert=0"};
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    ASSERT_EQ(posix_spawn(&pid_, TROUPE_REPLAY_SERVER, nullptr, nullptr, argv.data(), environ), 0);
    port_ = 0;
    while (port_ == 0 && waitpid(pid_, nullptr, WNOHANG) == 0) {
      std::ifstream(port_file) >> port_;
      std::this_thread::yield();
    }
    ASSERT_NE(port_, 0);
  }

  std::string dir_;
  pid_t pid_ = 0;
  int port_ = 0;
};

// Row n of environment e holds 1e6 e + n, so every row of a test differs.
class ClientsTest : public ::testing::Test {
 protected:
  ClientsTest() {
    writing_.shards = {first_.target(), second_.target()};
    writing_.run = "test";
    writing_.table = "replay";
    writing_.num_envs = 3;
    writing_.message_bytes = 2000;
    writing_.max_unacked_bytes = 64 << 20;  // all, even if nothing is ever acked
    writing_.reconnect_min = absl::Milliseconds(5);
    writing_.reconnect_max = absl::Milliseconds(100);
    writing_.move_after = absl::Hours(1);
    reading_.shards = writing_.shards;
    reading_.run = writing_.run;
    reading_.table = writing_.table;
    reading_.batch_size = 32;
    reading_.reconnect_max = absl::Milliseconds(100);
  }

  void StartWriter() {
    auto writer = RowWriter::Create(writing_, *Layout::FromProto(testing::SmallLayout()));
    ASSERT_TRUE(writer.ok()) << writer.status();
    writer_ = *std::move(writer);
    ASSERT_TRUE(writer_->WaitConnected(Soon()).ok());
  }

  void Append(int64_t rows_per_env) {
    for (int64_t i = 0; i < rows_per_env; ++i, ++next_) {
      for (int64_t env = 0; env < writing_.num_envs; ++env) {
        const auto appended = writer_->Append(env, [&](absl::Span<char> row) {
          const double reward = 1e6 * static_cast<double>(env) + static_cast<double>(next_);
          std::memcpy(row.data() + sizeof(RowHeader), &reward, sizeof(reward));
        });
        ASSERT_TRUE(appended.ok()) << appended.status();
      }
    }
  }

  void StartReader() {
    auto reader = ReplayClient::Create(reading_);
    ASSERT_TRUE(reader.ok()) << reader.status();
    reader_ = *std::move(reader);
    const auto table = reader_->WaitForTable(Soon());
    ASSERT_TRUE(table.ok()) << table.status();
    ASSERT_EQ(table->window_length, 2);
  }

  static double Reward(const uint8_t* row) {
    double reward = 0;
    std::memcpy(&reward, row + sizeof(RowHeader), sizeof(reward));
    return reward;
  }

  // A batch, each window of which is two rows that follow each other.
  WindowBatch Next() {
    auto batch = reader_->NextBatch(Soon());
    EXPECT_TRUE(batch.ok()) << batch.status();
    if (!batch.ok()) return {};
    for (int64_t i = 0; i < batch->num_windows; ++i) {
      EXPECT_EQ(Reward(batch->row(i, 0)) + 1, Reward(batch->row(i, 1)));
    }
    return *std::move(batch);
  }

  // How many rows the shard ever stored, and how many it got twice.
  static proto::TableDescription Describe(const ShardProcess& shard) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(absl::ToChronoTime(Soon()));
    proto::DescribeReply reply;
    const auto channel = grpc::CreateChannel(shard.target(), grpc::InsecureChannelCredentials());
    const grpc::Status status =
        proto::Replay::NewStub(channel)->Describe(&context, proto::DescribeRequest(), &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.tables_size() > 0 ? reply.tables(0) : proto::TableDescription();
  }

  ShardProcess first_;
  ShardProcess second_;
  RowWriterOptions writing_;
  ReplayClientOptions reading_;
  int64_t next_ = 0;
  std::unique_ptr<RowWriter> writer_;
  std::unique_ptr<ReplayClient> reader_;
};

TEST_F(ClientsTest, AShardThatIsKilledOverAndOverHoldsEveryRowOnce) {
  StartWriter();
  std::mt19937_64 random(1);
  for (int life = 0; life < 10; ++life) {
    Append(200 + static_cast<int64_t>(random() % 3000));
    first_.Kill();
    Append(static_cast<int64_t>(random() % 500));
    first_.Restart();
  }
  const absl::Status flushed = writer_->Flush(Soon());
  ASSERT_TRUE(flushed.ok()) << flushed;
  const RowWriterStats stats = writer_->stats();
  EXPECT_EQ(stats.rows_acked, stats.rows_appended);
  EXPECT_EQ(stats.streams_renamed, 0);
  const proto::TableDescription table = Describe(first_);
  EXPECT_EQ(table.rows(), stats.rows_appended);
  EXPECT_EQ(table.rows_appended(), stats.rows_appended);
  EXPECT_EQ(table.counts().inserted(), stats.rows_appended - 3);
}

TEST_F(ClientsTest, RowsOfAKilledShardArriveThereAfterTheMove) {
  writing_.move_after = absl::Milliseconds(200);
  StartWriter();
  const int32_t home = writer_->stats().shard;
  ShardProcess& old = home == 0 ? first_ : second_;
  ShardProcess& other = home == 0 ? second_ : first_;
  Append(1000);
  old.Kill();
  Append(10);
  while (writer_->stats().moves == 0) std::this_thread::yield();
  Append(1000);
  old.Restart();
  const absl::Status flushed = writer_->Flush(Soon());
  ASSERT_TRUE(flushed.ok()) << flushed;
  int64_t held = 0;
  for (const RowStream& stream : writer_->streams()) held += stream.acked_rows;
  EXPECT_EQ(held, 6030);
  EXPECT_EQ(Describe(old).rows() + Describe(other).rows(), 6030);
  EXPECT_GE(Describe(other).rows(), 3000);
}

TEST_F(ClientsTest, BatchesGoOnWhileShardsDieInTurn) {
  writing_.first_shard = 0;
  StartWriter();
  Append(1000);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  std::unique_ptr<RowWriter> first_writer = std::move(writer_);
  writing_.first_shard = 1;
  next_ = 2000;
  StartWriter();
  Append(500);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  StartReader();
  for (int life = 0; life < 4; ++life) {
    ShardProcess& shard = life % 2 == 0 ? first_ : second_;
    for (int i = 0; i < 50; ++i) Next();
    shard.Kill();
    for (int i = 0; i < 50; ++i) Next();
    shard.Restart();
    while (reader_->stats().shards_up < 2) Next();
  }
  EXPECT_EQ(reader_->counts().inserted, 3 * 999 + 3 * 499);
  EXPECT_EQ(reader_->counts().env_steps, 4500);
}

TEST_F(ClientsTest, UniformOverTheUnionOfUnevenShards) {
  StartWriter();
  Append(300);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  std::unique_ptr<RowWriter> first_writer = std::move(writer_);
  writing_.first_shard = 1;
  next_ = 1000;
  StartWriter();
  Append(30);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  StartReader();
  // Cells: ten equal parts of the first shard's windows of each environment, one of the second's.
  const int64_t windows = 3 * 299 + 3 * 29;
  std::map<double, int64_t> counts;
  constexpr int kBatches = 1000;
  for (int i = 0; i < kBatches; ++i) {
    const WindowBatch batch = Next();
    for (int64_t w = 0; w < batch.num_windows; ++w) {
      ++counts[Reward(batch.row(w, 0))];
      EXPECT_FLOAT_EQ(batch.buffer->probabilities[w], 1.0f / static_cast<float>(windows));
    }
  }
  const double expected = kBatches * 32.0 / static_cast<double>(windows);
  double chi_squared = 0;
  for (const auto& [reward, count] : counts) {
    chi_squared += (count - expected) * (count - expected) / expected;
  }
  EXPECT_EQ(std::ssize(counts), windows);
  // 983 degrees of freedom: mean 983, standard deviation 44.
  EXPECT_NEAR(chi_squared, 983, 4.5 * 44);
}

TEST_F(ClientsTest, TheSamplesPerInsertHoldWhileActorsAndLearnerRun) {
  reading_.rate_limit = {.min_size = 100, .samples_per_insert = 16, .slack = 256};
  StartWriter();
  StartReader();
  std::thread actor([this] { Append(700); });
  for (int i = 0; i < 1000; ++i) {
    Next();
    const ReplayCounts counts = reader_->counts();
    EXPECT_LE(static_cast<double>(counts.sampled),
              16 * (static_cast<double>(counts.inserted) - 100) + 256);
  }
  actor.join();
}

TEST_F(ClientsTest, SnapshotsReachSubscribersAcrossRestartsAndOldEpochsAreRefused) {
  const SnapshotClientOptions options{
      .shards = writing_.shards, .run = "test", .reconnect_max = absl::Milliseconds(100)};
  auto publisher = *SnapshotPublisher::Create(options);
  auto subscriber = *SnapshotSubscriber::Create(options, 0);
  const auto publish = [&](PolicyVersion version) {
    auto snapshot = std::make_shared<Snapshot>();
    snapshot->run = "test";
    snapshot->version = version.Packed();
    snapshot->image.assign(100'000, static_cast<char>(version.counter));
    snapshot->crc32c = Crc32c(0, snapshot->image.data(), snapshot->image.size());
    return publisher->Publish(snapshot);
  };
  uint64_t seen = 0;
  for (uint64_t counter = 1; counter <= 20; ++counter) {
    ASSERT_TRUE(publish({.epoch = 2, .counter = counter}).ok());
    if (counter % 5 == 0) {
      first_.Kill();
      first_.Restart();
    }
    const auto received = subscriber->WaitNewer(seen, Soon());
    ASSERT_TRUE(received.ok()) << received.status();
    seen = (*received)->version;
  }
  const uint64_t last = PolicyVersion{.epoch = 2, .counter = 20}.Packed();
  ASSERT_TRUE(publisher->WaitPublished(last, Soon()).ok());
  while (seen < last) seen = (*subscriber->WaitNewer(seen, Soon()))->version;

  publisher = *SnapshotPublisher::Create(options);
  ASSERT_TRUE(publish({.epoch = 1, .counter = 99}).ok());
  EXPECT_EQ(publisher->WaitPublished(last, Soon()).code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace troupe
