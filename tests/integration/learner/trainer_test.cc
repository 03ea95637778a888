// The learner's loop against a real shard in this process, fed by a writer of made-up rows.
#include "learner/trainer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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

std::shared_ptr<ShardDirectory> ShardsOf(const proto::Config& config) {
  return ShardDirectory::OrFixed(nullptr, {config.shards().begin(), config.shards().end()},
                                 Credentials::Plaintext())
      .value();
}

using Wrap = std::function<std::unique_ptr<Algorithm>(std::unique_ptr<Algorithm>)>;

// Everything that one learner process holds, but for its `main`.
struct Learner {
  Learner(const proto::Config& config, const std::string& run_dir, const Wrap& wrap = {})
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
    if (wrap) algorithm = wrap(std::move(algorithm));
    state = Resume(checkpoints, config.run(), info.max_epoch, *algorithm).value();
    log = ProgressLog::Create(run_dir, metrics).value();
    if (config.learner().sampling() == proto::REPLICA) {
      replica = Replica::Create(config, ShardsOf(config), info, *algorithm).value();
    }
    trainer = std::make_unique<Trainer>(config,
                                        Trainer::Parts{*replay, *batches, *publisher, *algorithm,
                                                       checkpoints, *log, stop, replica.get()},
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
  std::unique_ptr<Replica> replica;
  std::unique_ptr<Trainer> trainer;
};

// An algorithm that takes its policies, as those do whose updates go on meanwhile.
class TakingAlgorithm final : public Algorithm {
 public:
  struct Encoded {
    int64_t taken;  // updates when it was taken; -1: it was not
    int64_t now;
  };

  TakingAlgorithm(std::unique_ptr<Algorithm> inner, std::vector<Encoded>& encoded)
      : inner_(std::move(inner)), encoded_(encoded) {}

  absl::Status Update(const WindowBatch& batch, int64_t env_steps) override {
    return inner_->Update(batch, env_steps);
  }
  int64_t updates() const override { return inner_->updates(); }
  std::map<std::string, double> Statistics() const override { return inner_->Statistics(); }
  bool TakePolicy() override {
    EXPECT_EQ(taken_, -1) << "the one before was never encoded";
    taken_ = updates();
    return true;
  }
  absl::StatusOr<std::string> EncodePolicy(const PolicyStamp& stamp) const override {
    encoded_.push_back({std::exchange(taken_, -1), updates()});
    return inner_->EncodePolicy(stamp);
  }
  absl::StatusOr<std::map<std::string, std::string>> Save() const override {
    return inner_->Save();
  }
  absl::Status Load(const std::map<std::string, std::string>& files) override {
    return inner_->Load(files);
  }

 private:
  const std::unique_ptr<Algorithm> inner_;
  std::vector<Encoded>& encoded_;
  mutable int64_t taken_ = -1;
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
    options_ = options;
    server_ = Server::Start("127.0.0.1:0", options_).value();
    config_.add_shards(absl::StrCat("127.0.0.1:", server_->port()));
    StartWriter();
  }
  // Starts the shard and its writer anew, with a table of priorities.
  void UsePriorities() {
    StopAll();
    std::filesystem::remove_all(options_.data_dir);
    options_.tables[0].selector = proto::PRIORITIZED;
    config_.mutable_tables(0)->set_selector(proto::PRIORITIZED);
    server_ = Server::Start(config_.shards(0), options_).value();
    StartWriter();
  }
  // What the shard knows of the table.
  proto::TableDescription Table() {
    return server_->shard().FindTable("replay").value()->Describe();
  }
  // As after a crash of its machine, at the same address.
  void RestartShard() {
    server_->Stop(absl::ZeroDuration());
    server_ = nullptr;
    server_ = Server::Start(config_.shards(0), options_).value();
  }
  void AwaitSnapshot(uint64_t counter) {
    while (Newest() == nullptr || PolicyVersion::Unpack(Newest()->version).counter < counter) {
      std::this_thread::yield();
    }
  }
  ~TrainerTest() override {
    StopAll();
    std::filesystem::remove_all(dir_);
  }
  void StopAll() {
    writer_->Stop();
    feeder_.join();
    writer_ = nullptr;
    server_->Stop(absl::Seconds(1));
    server_ = nullptr;
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
  ShardOptions options_;
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

TEST_F(TrainerTest, APrioritizedTableLearnsTheErrorsOfItsWindows) {
  UsePriorities();
  Learner learner(config_, dir_);
  ASSERT_TRUE(learner.trainer->Run().ok());
  const proto::TableDescription table = Table();
  EXPECT_GT(table.priorities_updated(), 0);
  EXPECT_LE(table.priorities_updated() + table.priorities_unknown(),
            static_cast<uint64_t>(learner.trainer->target_updates()) * 8);
  EXPECT_EQ(table.priorities_unknown(), 0);
}

TEST_F(TrainerTest, APolicyThatWasTakenIsPublishedAfterTheNextUpdatesBegan) {
  std::vector<TakingAlgorithm::Encoded> encoded;
  Learner learner(config_, dir_, [&](std::unique_ptr<Algorithm> inner) {
    return std::make_unique<TakingAlgorithm>(std::move(inner), encoded);
  });
  ASSERT_TRUE(learner.trainer->Run().ok());
  // For the warm-up and at its end, then one every 10 updates but at the last, and the final one.
  ASSERT_EQ(encoded.size(), 2 + 24 + 1);
  for (int i = 0; i < 24; ++i) {
    EXPECT_EQ(encoded[2 + i].taken, 10 * (i + 1));
    EXPECT_EQ(encoded[2 + i].now, 10 * (i + 1) + 1);
  }
  EXPECT_EQ(encoded.back().taken, -1);
  EXPECT_EQ(encoded.back().now, 250);
  EXPECT_TRUE((*Policy::FromSnapshot(*Newest()))->metadata().final_one);
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
    AwaitSnapshot(5);
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

TEST_F(TrainerTest, TheLastCheckpointHoldsTheLastPolicy) {
  Learner learner(config_, dir_);
  ASSERT_TRUE(learner.trainer->Run().ok());
  const auto found = learner.checkpoints.ReadNewest();
  ASSERT_TRUE(found.ok()) << found.status();
  const auto policy = Policy::FromImage(found->checkpoint.files.at(kPolicyFile));
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_TRUE((*policy)->metadata().final_one);
  EXPECT_EQ((*policy)->metadata().version, Newest()->version);
}

TEST_F(TrainerTest, ACheckpointOfAnotherRunIsRefused) {
  { ASSERT_TRUE(Learner(config_, dir_).trainer->Run().ok()); }
  Learner learner(config_, dir_);
  EXPECT_EQ(Resume(learner.checkpoints, "another", 0, *learner.algorithm).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// The same loop where the learner draws from its own memory, with either engine.
class ReplicaTrainerTest : public TrainerTest, public testing::WithParamInterface<proto::Engine> {
 protected:
  ReplicaTrainerTest() {
    config_.mutable_learner()->set_sampling(proto::REPLICA);
    config_.mutable_learner()->set_engine(GetParam());
  }

  // Trains until `snapshots` are out, and stops; returns the updates.
  int64_t TrainFor(uint64_t snapshots) {
    Learner learner(config_, dir_);
    std::thread stopper([&] {
      const uint64_t epoch = learner.state.version.epoch;
      while (Newest() == nullptr || PolicyVersion::Unpack(Newest()->version).epoch < epoch ||
             PolicyVersion::Unpack(Newest()->version).counter < snapshots) {
        std::this_thread::yield();
      }
      learner.stop.Request();
    });
    const absl::Status ran = learner.trainer->Run();
    stopper.join();
    EXPECT_TRUE(ran.ok()) << ran;
    return learner.algorithm->updates();
  }
  // Has every row that is stored come to the replica, at once or in a while?
  bool CatchesUp(Learner& learner) {
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    while (learner.replica->rows() < Table().rows_appended() && absl::Now() < deadline) {
      EXPECT_TRUE(learner.replica->Absorb(absl::Now() + absl::Milliseconds(10)).ok());
    }
    return learner.replica->rows() >= Table().rows_appended();
  }
  // Samples that the rows are worth, less those that were drawn; within the slack either way.
  void ExpectInBand() {
    const proto::Table table = EffectiveTable(config_, "replay").value();
    const proto::TableDescription now = Table();
    const double earned =
        table.rate_limiter().samples_per_insert() *
        (static_cast<double>(now.counts().inserted()) - table.rate_limiter().min_size());
    const double ahead = earned - static_cast<double>(now.counts().sampled());
    EXPECT_GE(ahead, -table.rate_limiter().slack());
    // A message of rows is let in as a whole.
    EXPECT_LE(ahead, table.rate_limiter().slack() + 20 * table.rate_limiter().samples_per_insert());
  }
};

TEST_P(ReplicaTrainerTest, LearnsFromEveryStepAndTheShardCountsTheDraws) {
  Learner learner(config_, dir_);
  ASSERT_TRUE(learner.trainer->Run().ok());
  EXPECT_EQ(learner.algorithm->updates(), 250);
  EXPECT_TRUE((*Policy::FromSnapshot(*Newest()))->metadata().final_one);
  EXPECT_TRUE(CatchesUp(learner));
  EXPECT_LE(learner.replay->counts().sampled, 250 * 8);
  EXPECT_EQ(learner.replica->stats().rows_missed, 0);
  const std::string metrics = learner.metrics.Text();
  EXPECT_EQ(metrics.find("troupe_learner_replica_rows 0"), std::string::npos);
  EXPECT_NE(metrics.find("troupe_learner_replica_rows_missed_total 0"), std::string::npos);
}

TEST_P(ReplicaTrainerTest, SnapshotsAndCheckpointsComeAtTheirUpdates) {
  Learner learner(config_, dir_);
  ASSERT_TRUE(learner.trainer->Run().ok());
  // One for the warm-up, one at its end, one every 10 updates but at the last, and the final one.
  EXPECT_EQ(PolicyVersion::Unpack(Newest()->version).counter, 2 + 24 + 1);
  EXPECT_TRUE(std::filesystem::exists(dir_ + "/checkpoints/000000000200"));
}

TEST_P(ReplicaTrainerTest, ALearnerThatIsStartedAgainFillsItsReplicaAndGoesOnInTheBand) {
  config_.set_total_env_steps(1000000);
  const int64_t first = TrainFor(30);
  ExpectInBand();
  EXPECT_EQ(Table().counts().sampled(), first * 8);
  const int64_t second = TrainFor(60);
  EXPECT_GT(second, first);
  ExpectInBand();
  EXPECT_EQ(Table().counts().sampled(), second * 8);
}

TEST_P(ReplicaTrainerTest, AShardThatIsStartedAgainIsFollowedOnAndNothingIsStuck) {
  config_.set_total_env_steps(1000000);
  Learner learner(config_, dir_);
  std::thread driver([&] {
    for (const uint64_t snapshots : {20, 60, 100}) {
      AwaitSnapshot(snapshots);
      const int64_t reconnects = learner.replica->stats().reconnects;
      RestartShard();
      // Followed again before the next one, or two would be one.
      while (learner.replica->stats().reconnects == reconnects ||
             learner.replica->stats().shards_up == 0) {
        std::this_thread::yield();
      }
    }
    AwaitSnapshot(140);
    learner.stop.Request();
  });
  const absl::Status ran = learner.trainer->Run();
  driver.join();
  ASSERT_TRUE(ran.ok()) << ran;
  ExpectInBand();
  EXPECT_TRUE(CatchesUp(learner));
  const FollowStats stats = learner.replica->stats();
  EXPECT_GE(stats.reconnects, 3);
  EXPECT_EQ(stats.restarts, 0);
  EXPECT_EQ(stats.rows_missed, 0);
  EXPECT_LE(stats.rows, Table().rows_appended());
}

TEST_P(ReplicaTrainerTest, FromOneSamplingToTheOtherTheRatioHolds) {
  config_.set_total_env_steps(1000000);
  TrainFor(20);
  config_.mutable_learner()->set_sampling(proto::REMOTE);
  TrainFor(20);
  ExpectInBand();
  config_.mutable_learner()->set_sampling(proto::REPLICA);
  TrainFor(20);
  ExpectInBand();
}

TEST_P(ReplicaTrainerTest, AReplicaAboveItsBoundIsRefusedWithTheNumbers) {
  config_.mutable_learner()->set_max_replica_bytes(1 << 20);
  Learner remote(
      [&] {
        proto::Config config = config_;
        config.mutable_learner()->set_sampling(proto::REMOTE);
        return config;
      }(),
      dir_);
  const TableInfo info = remote.replay->WaitForTable(absl::InfiniteFuture()).value();
  const absl::Status status =
      Replica::Create(config_, ShardsOf(config_), info, *remote.algorithm).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_NE(status.message().find("1000000 rows"), std::string::npos) << status;
  EXPECT_NE(status.message().find("max_replica_bytes is 1048576"), std::string::npos) << status;
}

INSTANTIATE_TEST_SUITE_P(Engines, ReplicaTrainerTest,
                         testing::Values(proto::REFERENCE, proto::FUSED),
                         [](const auto& info) { return proto::Engine_Name(info.param); });

}  // namespace
}  // namespace troupe
