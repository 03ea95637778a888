// The learner's loop against a real shard in this process, fed by a writer of made-up rows.
#include "learner/trainer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "actor/row_packer.h"
#include "actor/row_writer.h"
#include "common/config.h"
#include "common/policy.h"
#include "learner/make_algorithm.h"
#include "replay_server/server.h"

namespace troupe {
namespace {

constexpr char kConfig[] = R"(
  run: "trainer_test"
  total_env_steps: 300
  learner {
    publish_interval_updates: 10
    checkpoint_interval_updates: 100
    log_interval_updates: 50
    sac { batch_size: 8 random_steps: 50 actor { hidden_sizes: 8 } critic { hidden_sizes: 8 } }
  }
)";

EnvSpec Spec() {
  return {.id = "MadeUp-v0",
          .observation_size = 3,
          .action_size = 1,
          .action_low = {-2},
          .action_high = {2}};
}

// Everything that one learner process holds, but for its `main`.
struct Learner {
  Learner(const proto::Config& config, const std::string& run_dir)
      : checkpoints(absl::StrCat(run_dir, "/checkpoints"), 2), metrics("troupe-learner") {
    const proto::Table table = EffectiveTable(config, "replay").value();
    const std::vector<std::string> shards = {config.shards().begin(), config.shards().end()};
    replay = ReplayClient::Create({.shards = shards,
                                   .run = config.run(),
                                   .table = "replay",
                                   .batch_size = config.learner().sac().batch_size(),
                                   .rate_limit = {table.rate_limiter().min_size(),
                                                  table.rate_limiter().samples_per_insert(),
                                                  table.rate_limiter().slack()}})
                 .value();
    batches = std::make_unique<SampledBatches>(*replay);
    publisher = SnapshotPublisher::Create({.shards = shards, .run = config.run()}).value();
    const TableInfo info = replay->WaitForTable(absl::InfiniteFuture()).value();
    algorithm = MakeAlgorithm(config, info.layout).value();
    state = Resume(checkpoints, config.run(), info.max_epoch, *algorithm).value();
    log = ProgressLog::Create(run_dir, metrics).value();
    trainer = std::make_unique<Trainer>(
        config, Trainer::Parts{*replay, *batches, *publisher, *algorithm, checkpoints, *log, stop},
        state);
  }

  CheckpointDirectory checkpoints;
  Metrics metrics;
  StopToken stop;
  std::unique_ptr<ReplayClient> replay;
  std::unique_ptr<BatchSource> batches;
  std::unique_ptr<SnapshotPublisher> publisher;
  std::unique_ptr<Algorithm> algorithm;
  RunState state;
  std::unique_ptr<ProgressLog> log;
  std::unique_ptr<Trainer> trainer;
};

class TrainerTest : public testing::Test {
 protected:
  TrainerTest() {
    dir_ = testing::TempDir() + absl::StrCat("trainer_test_", getpid());
    std::filesystem::create_directories(dir_);
    config_ = ParseConfig(kConfig, "test", {}).value();
    const proto::Table table = EffectiveTable(config_, "replay").value();
    ShardOptions options{.data_dir = dir_ + "/shard"};
    options.tables.push_back({.name = "replay", .path = "", .capacity_rows = 100000});
    options.tables[0].rate_limit = {table.rate_limiter().min_size(),
                                    table.rate_limiter().samples_per_insert(),
                                    table.rate_limiter().slack()};
    server_ = Server::Start("127.0.0.1:0", options).value();
    config_.add_shards(absl::StrCat("127.0.0.1:", server_->port()));
    StartWriter();
  }
  ~TrainerTest() override {
    writer_->Stop();
    feeder_.join();
    writer_ = nullptr;
    server_->Stop(absl::Seconds(1));
    std::filesystem::remove_all(dir_);
  }

  // Rows as fast as the shard lets them in.
  void StartWriter() {
    const Layout layout = Layout::FromProto(MakeLayout(Spec())).value();
    RowWriterOptions options{
        .shards = {config_.shards(0)}, .run = config_.run(), .table = "replay"};
    options.max_unacked_bytes = 4096;
    options.message_bytes = 512;
    writer_ = RowWriter::Create(options, layout).value();
    feeder_ = std::thread([this, packer = RowPacker::Create(layout).value()] {
      absl::Status status;
      for (int t = 0; status.ok(); ++t) {
        const float x = static_cast<float>(t % 17) / 17;
        status =
            writer_
                ->Append(0,
                         [&](absl::Span<char> row) {
                           packer.PackStep(
                               {.observation = {x, -x, x * x}, .action = {x}, .reward = x}, row);
                         })
                .status();
      }
    });
  }

  SnapshotPtr Newest() { return server_->shard().snapshots().newest(); }

  std::string dir_;
  proto::Config config_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<RowWriter> writer_;
  std::thread feeder_;
};

TEST_F(TrainerTest, LearnsFromEveryStepAfterTheWarmUpAndEndsWithAFinalSnapshot) {
  Learner learner(config_, dir_);
  ASSERT_TRUE(learner.trainer->Run().ok());
  EXPECT_EQ(learner.algorithm->updates(), 250);
  const auto policy = Policy::FromSnapshot(*Newest());
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_TRUE((*policy)->metadata().final_one);
  EXPECT_FALSE((*policy)->metadata().warmup);
  EXPECT_GE((*policy)->metadata().env_steps, 300);
}

TEST_F(TrainerTest, ARunThatIsCompleteIsSaidToBeOverAgain) {
  { ASSERT_TRUE(Learner(config_, dir_).trainer->Run().ok()); }
  const uint64_t first = Newest()->version;
  Learner again(config_, dir_);
  ASSERT_TRUE(again.trainer->Run().ok());
  EXPECT_EQ(again.algorithm->updates(), 250);
  EXPECT_GT(PolicyVersion::Unpack(Newest()->version).epoch, PolicyVersion::Unpack(first).epoch);
  EXPECT_TRUE((*Policy::FromSnapshot(*Newest()))->metadata().final_one);
}

TEST_F(TrainerTest, AStopSavesWhatTheNextLearnerGoesOnFrom) {
  config_.set_total_env_steps(1000000);
  Learner learner(config_, dir_);
  std::thread stopper([&] {
    while (Newest() == nullptr || PolicyVersion::Unpack(Newest()->version).counter < 5) {
      std::this_thread::yield();
    }
    learner.stop.Request();
  });
  const absl::Status ran = learner.trainer->Run();
  stopper.join();
  ASSERT_TRUE(ran.ok()) << ran;
  const int64_t updates = learner.algorithm->updates();
  EXPECT_GT(updates, 0);
  Learner next(config_, dir_);
  EXPECT_EQ(next.algorithm->updates(), updates);
  EXPECT_EQ(next.state.saved_updates, updates);
  EXPECT_GT(next.state.version.epoch, learner.state.version.epoch);
}

TEST_F(TrainerTest, ALearnerWhoseRunWasTakenOverStops) {
  config_.set_total_env_steps(1000000);
  Learner first(config_, dir_ + "/first");
  absl::Status ran;
  std::thread running([&] { ran = first.trainer->Run(); });
  while (Newest() == nullptr) std::this_thread::yield();
  Snapshot newer = *Newest();
  newer.version = PolicyVersion{.epoch = 99, .counter = 1}.Packed();
  ASSERT_TRUE(server_->shard().snapshots().Publish(std::move(newer)).ok());
  running.join();
  EXPECT_EQ(ran.code(), absl::StatusCode::kFailedPrecondition) << ran;
}

TEST_F(TrainerTest, ACheckpointOfAnotherRunIsRefused) {
  { ASSERT_TRUE(Learner(config_, dir_).trainer->Run().ok()); }
  Learner learner(config_, dir_);
  EXPECT_EQ(Resume(learner.checkpoints, "another", 0, *learner.algorithm).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace troupe
