// Actors, a shard and the learner's side of a batch in this process: whose rows are in it?
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "actor/env.h"
#include "actor/row_packer.h"
#include "actor/row_writer.h"
#include "actor/run_actor.h"
#include "common/config.h"
#include "common/crc32c.h"
#include "common/frame_stack.h"
#include "common/recurrence.h"
#include "common/snapshot_client.h"
#include "learner/make_algorithm.h"
#include "learner/on_policy_batches.h"
#include "replay_server/server.h"

namespace troupe {
namespace {

constexpr char kConfig[] = R"(
  run: "on_policy_test"
  environment { id: "CartPole-v1" }
  actor { num_envs: 2 }
  learner {
    ppo { unroll_length: 8 batch_windows: 4 epochs: 1 actor { hidden_sizes: 8 }
          critic { hidden_sizes: 8 } }
  }
)";
constexpr int64_t kLength = 8, kWindows = 4;

// An actor in a thread of its own.
class RunningActor final {
 public:
  explicit RunningActor(const ActorOptions& options)
      : metrics_("troupe-actor"), thread_([this, options] {
          const absl::Status ran = RunActor(options, stop_, metrics_);
          EXPECT_TRUE(ran.ok()) << ran;
        }) {}
  ~RunningActor() {
    stop_.Request();
    thread_.join();
  }

 private:
  StopToken stop_;
  Metrics metrics_;
  std::thread thread_;  // last, so that it sees the rest constructed
};

class OnPolicyTest : public testing::Test {
 protected:
  explicit OnPolicyTest(const std::vector<std::string>& sets = {}) {
    dir_ = testing::TempDir() + absl::StrCat("on_policy_test_", getpid());
    config_ = ParseConfig(kConfig, "test", sets).value();
    const proto::Table table = EffectiveTable(config_, "replay").value();
    ShardOptions options{.data_dir = dir_};
    options.tables.push_back(
        {.name = "replay",
         .path = "",
         .capacity_rows = 100000,
         .window = {.length = static_cast<uint32_t>(table.window().length()),
                    .stride = static_cast<uint32_t>(table.window().stride()),
                    .start_at_final_rows = table.window().start_at_final_rows()},
         .selector = table.selector(),
         .max_times_sampled = static_cast<uint8_t>(table.max_times_sampled())});
    options.tables[0].rate_limit.queue_length = table.rate_limiter().queue_length();
    server_ = Server::Start("127.0.0.1:0", options).value();
    shards_ = {absl::StrCat("127.0.0.1:", server_->port())};
    replay_ = ReplayClient::Create({.shards = shards_,
                                    .run = config_.run(),
                                    .table = "replay",
                                    .batch_size = SampledAtOnce(config_),
                                    .samples_once = true,
                                    .request_timeout = absl::Milliseconds(100)})
                  .value();
    publisher_ = SnapshotPublisher::Create({.shards = shards_, .run = config_.run()}).value();
  }
  ~OnPolicyTest() override {
    actors_.clear();
    replay_ = nullptr;
    publisher_ = nullptr;
    server_->Stop(absl::Seconds(1));
    std::filesystem::remove_all(dir_);
  }

  RowWriterOptions WriterOptions(int64_t num_envs) const {
    return {.shards = shards_, .run = config_.run(), .table = "replay", .num_envs = num_envs};
  }

  void StartActor() {
    const int64_t index = next_actor_++;
    actors_.push_back(std::make_unique<RunningActor>(
        ActorOptions{.environment = config_.environment(),
                     .asset_dir = DefaultAssetDir(),
                     .actor_index = index,
                     .seed = static_cast<uint64_t>(index),
                     .with_log_prob = true,
                     .state_size = StateSize(config_.learner().ppo().recurrence()),
                     .unroll = {.length = kLength,
                                .synchronous = true,
                                .lead_rows = LeadRows(config_.learner().ppo())},
                     .writer = WriterOptions(config_.actor().num_envs()),
                     .snapshots = {.shards = shards_, .run = config_.run()}}));
  }

  // The learner, once the first actor has brought the layout.
  void StartLearner(int64_t max_policy_lag = 0, absl::Duration stall = absl::Milliseconds(500)) {
    const TableInfo info = replay_->WaitForTable(absl::InfiniteFuture()).value();
    proto::Config config = config_;
    config.mutable_learner()->mutable_ppo()->clear_encoder();  // rows here have no images
    algorithm_ = MakeAlgorithm(config, info.layout).value();
    batches_ = std::make_unique<OnPolicyBatches>(
        *replay_, OnPolicyBatches::Options{.batch_windows = kWindows,
                                           .window_length = info.window_length,
                                           .lead_rows = LeadRows(config_.learner().ppo()),
                                           .stride_bytes = info.layout.stride_bytes(),
                                           .max_policy_lag = max_policy_lag,
                                           .stall = stall});
  }

  void Publish() {
    ++version_.counter;
    auto snapshot = std::make_shared<Snapshot>();
    snapshot->run = config_.run();
    snapshot->version = version_.Packed();
    snapshot->image =
        algorithm_->EncodePolicy({.run = config_.run(), .version = snapshot->version}).value();
    snapshot->crc32c = Crc32c(0, snapshot->image.data(), snapshot->image.size());
    ASSERT_TRUE(publisher_->Publish(std::move(snapshot)).ok());
  }

  WindowBatch Next() { return batches_->Next(version_, absl::InfiniteFuture()).value(); }

  // A batch of the newest version, and nothing else; then one step of learning.
  void LearnOneVersion() {
    Publish();
    const WindowBatch batch = Next();
    ASSERT_EQ(batch.num_windows, kWindows);
    ASSERT_EQ(batch.window_length, kLength + 1);
    for (int64_t i = 0; i < kWindows; ++i) {
      for (int64_t t = 0; t <= kLength; ++t) {
        const RowHeader header = ReadRowHeader(batch.row(i, t));
        ASSERT_EQ(header.policy_version, version_.Packed()) << "window " << i << ", row " << t;
        ASSERT_TRUE(t < kLength || IsFinal(header.flags)) << "window " << i;
        ASSERT_TRUE(t == kLength || header.flags != kCut) << "window " << i;
      }
    }
    ASSERT_TRUE(algorithm_->Update(batch, 0).ok());
  }

  // Windows that a writer completes with rows of these versions, one window each.
  void WriteWindows(RowWriter& writer, const RowPacker& packer,
                    const std::vector<uint64_t>& counters) {
    for (const uint64_t counter : counters) {
      const uint64_t version = PolicyVersion{.epoch = 1, .counter = counter}.Packed();
      for (int64_t t = 0; t <= kLength; ++t) {
        const auto appended = writer.Append(0, [&](absl::Span<char> row) {
          t < kLength
              ? packer.PackStep({.policy_version = version,
                                 .observation = {0, 0, 0, 0},
                                 .action = {1},
                                 .reward = static_cast<float>(counter)},
                                row)
              : packer.PackFinal(
                    {.policy_version = version, .observation = {0, 0, 0, 0}, .flags = kCut}, row);
        });
        ASSERT_TRUE(appended.ok()) << appended.status();
      }
    }
    ASSERT_TRUE(writer.SendNow().ok());
  }

  // The versions of a batch's windows.
  static std::vector<uint64_t> Counters(const WindowBatch& batch) {
    std::vector<uint64_t> counters;
    for (int64_t i = 0; i < batch.num_windows; ++i) {
      counters.push_back(
          PolicyVersion::Unpack(ReadRowHeader(batch.row(i, 0)).policy_version).counter);
    }
    return counters;
  }

  std::string dir_;
  proto::Config config_;
  std::unique_ptr<Server> server_;
  std::vector<std::string> shards_;
  std::unique_ptr<ReplayClient> replay_;
  std::unique_ptr<SnapshotPublisher> publisher_;
  std::unique_ptr<Algorithm> algorithm_;
  std::unique_ptr<OnPolicyBatches> batches_;
  std::deque<std::unique_ptr<RunningActor>> actors_;
  int64_t next_actor_ = 0;
  PolicyVersion version_{.epoch = 1, .counter = 0};
};

TEST_F(OnPolicyTest, EveryRowOfABatchWasDrawnByTheVersionItIsTrainedFor) {
  StartActor();
  StartActor();
  StartLearner(/*max_policy_lag=*/0, /*stall=*/absl::InfiniteDuration());
  for (int i = 0; i < 30; ++i) ASSERT_NO_FATAL_FAILURE(LearnOneVersion());
  EXPECT_EQ(batches_->steps_too_old(), 0);
  EXPECT_EQ(replay_->counts().inserted, 30u * kWindows);  // each made one unroll, and waited
}

class OnPolicyStacksTest : public OnPolicyTest {
 protected:
  OnPolicyStacksTest() : OnPolicyTest({"learner.ppo.encoder.frame_stack=3"}) {}
};

TEST_F(OnPolicyStacksTest, WindowsReachBackBehindTheirUnrollWithoutWaitingForTheNext) {
  constexpr int64_t kLead = 3;
  StartActor();
  StartActor();
  StartLearner(/*max_policy_lag=*/0, /*stall=*/absl::InfiniteDuration());
  for (int round = 0; round < 10; ++round) {
    Publish();
    const WindowBatch batch = Next();
    ASSERT_EQ(batch.window_length, kLead + kLength + 1);
    for (int64_t i = 0; i < kWindows; ++i) {
      for (int64_t t = kLead; t < batch.window_length; ++t) {
        const RowHeader header = ReadRowHeader(batch.row(i, t));
        ASSERT_EQ(header.policy_version, version_.Packed()) << "window " << i << ", row " << t;
        const bool is_last = t == batch.window_length - 1;
        ASSERT_TRUE(is_last ? IsFinal(header.flags) : header.flags != kCut) << "window " << i;
      }
      if (round == 0) continue;
      const RowHeader before = ReadRowHeader(batch.row(i, kLead - 1));
      EXPECT_TRUE(IsFinal(before.flags));
      EXPECT_LT(before.policy_version, version_.Packed());
    }
  }
  EXPECT_EQ(batches_->steps_too_old(), 0);
}

class OnPolicyMemoryTest : public OnPolicyTest {
 protected:
  OnPolicyMemoryTest()
      : OnPolicyTest({"environment.hide_velocities=true", "learner.ppo.recurrence.kind=LSTM",
                      "learner.ppo.recurrence.units=8", "learner.ppo.recurrence.sequence_length=4",
                      "learner.ppo.minibatch_size=0", "learner.ppo.learning_rate=0.02"}) {}
};

// There is one gradient step a batch, and before it the ratios are 1 only if the learner, which
// begins every fourth row anew, remembers what the actor did.
TEST_F(OnPolicyMemoryTest, TheLearnerRemembersWhatTheActorDid) {
  StartActor();
  StartActor();
  StartLearner();
  for (int i = 0; i < 20; ++i) {
    ASSERT_NO_FATAL_FAILURE(LearnOneVersion());
    // A float32 ratio of 1 is off by up to 1e-7; another memory would be off by far more.
    EXPECT_LT(algorithm_->Statistics().at("kl"), 1e-6) << "version " << i;
  }
}

TEST_F(OnPolicyMemoryTest, AnEpisodeBeginsWithoutMemories) {
  StartActor();
  StartLearner();
  const int64_t offset =
      replay_->WaitForTable(absl::InfiniteFuture())->layout.Find(kRecurrentState)->offset_bytes;
  int64_t begun = 0;
  for (int i = 0; begun < 5; ++i) {
    ASSERT_LT(i, 100) << "no episode ends inside a window";
    Publish();
    const WindowBatch batch = Next();
    for (int64_t row = 0; row < kWindows * kLength; ++row) {
      const int64_t window = row / kLength, t = row % kLength;
      float first;  // number of the state; only zeros are exactly 0
      std::memcpy(&first, batch.row(window, t + 1) + offset, sizeof(first));
      const uint32_t flags = ReadRowHeader(batch.row(window, t)).flags;
      ASSERT_EQ(first == 0, flags != 0) << "window " << window << ", row " << t + 1;
      begun += flags != 0;
    }
    ASSERT_TRUE(algorithm_->Update(batch, 0).ok());
  }
}

TEST_F(OnPolicyTest, OneActorThatIsLeftFillsTheBatchesAlone) {
  StartActor();
  StartActor();
  StartLearner();
  for (int i = 0; i < 3; ++i) ASSERT_NO_FATAL_FAILURE(LearnOneVersion());
  actors_.pop_back();
  for (int i = 0; i < 5; ++i) ASSERT_NO_FATAL_FAILURE(LearnOneVersion());
  StartActor();
  for (int i = 0; i < 5; ++i) ASSERT_NO_FATAL_FAILURE(LearnOneVersion());
}

// A first stall tells the learner how many windows a round has; then each is asked for at once, and
// a request that comes before the actor waits for one is not lost.
TEST_F(OnPolicyTest, FewerEnvironmentsThanWindowsMakeRoundsWithoutAStall) {
  StartActor();
  StartLearner();
  for (int i = 0; i < 100; ++i) ASSERT_NO_FATAL_FAILURE(LearnOneVersion());
  EXPECT_LE(batches_->stalls(), 10);  // the machine may pause, too
}

TEST_F(OnPolicyTest, ABatchLeftInTheMiddleIsFilledByTheNextActor) {
  StartActor();
  StartLearner();
  Publish();
  while (batches_->Next(version_, absl::Now()).ok()) {
  }
  while (replay_->counts().inserted < 2) {
    ASSERT_FALSE(batches_->Next(version_, absl::Now() + absl::Milliseconds(10)).ok());
  }
  actors_.clear();
  StartActor();
  EXPECT_EQ(Counters(Next()), std::vector<uint64_t>(kWindows, 1));
}

TEST_F(OnPolicyTest, RowsThatAreTooOldAreLeftOutAndCounted) {
  const auto env = MakeEnv(config_.environment(), DefaultAssetDir()).value();
  const Layout layout = Layout::FromProto(MakeLayout(env->spec(), true)).value();
  const RowPacker packer = RowPacker::Create(layout).value();
  const auto writer = RowWriter::Create(WriterOptions(1), layout).value();
  ASSERT_TRUE(writer->WaitConnected(absl::InfiniteFuture()).ok());
  StartLearner(/*max_policy_lag=*/1);
  WriteWindows(*writer, packer, {1, 4, 5, 3, 5, 4, 6});
  version_.counter = 5;  // 6 was drawn for a learner that has gone since
  EXPECT_EQ(Counters(Next()), (std::vector<uint64_t>{4, 5, 5, 4}));
  EXPECT_EQ(batches_->steps_too_old(), 2 * kLength);
  version_ = {.epoch = 2, .counter = 6};
  WriteWindows(*writer, packer, {6});
  EXPECT_FALSE(batches_->Next(version_, absl::Now() + absl::Milliseconds(300)).ok());
  EXPECT_EQ(batches_->steps_too_old(), 4 * kLength);
}

}  // namespace
}  // namespace troupe
