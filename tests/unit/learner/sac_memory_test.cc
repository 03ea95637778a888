// SAC with a memory: what is read of windows, and does it learn what only a memory can know?
#include <random>
#include <string>

#include "common/policy.h"
#include "common/recurrence.h"
#include "gtest/gtest.h"
#include "learner/sac.h"
#include "tests/unit/learner/ppo_rows.h"

namespace troupe {
namespace {

using torch::Tensor;

constexpr int kBurnIn = 2, kSequence = 4, kUnits = 8;

proto::Recurrence Memory(proto::RecurrenceKind kind = proto::GRU) {
  proto::Recurrence recurrence;
  recurrence.set_kind(kind);
  recurrence.set_units(kUnits);
  recurrence.set_burn_in(kBurnIn);
  recurrence.set_sequence_length(kSequence);
  return recurrence;
}

Layout LayoutOf(const proto::Recurrence& recurrence) {
  proto::Layout layout = ContinuousLayout(1, {-1}, {1}).proto();
  if (HasMemory(recurrence)) {
    AddColumn(kRecurrentState, proto::FLOAT32, StateSize(recurrence), layout);
  }
  return *Layout::FromProto(layout);
}

// Row i of a stream: observation i, action i / 100, reward 2^-i, state i everywhere.
PpoRow NumberedRow(int i, uint32_t flags) {
  PpoRow row{.observation = {static_cast<float>(i)}, .flags = flags};
  row.memory.assign(kUnits, static_cast<float>(i));
  row.action = {IsFinal(flags) ? 0.0f : static_cast<float>(i) / 100};
  row.reward = IsFinal(flags) ? 0 : std::exp2f(static_cast<float>(-i));
  return row;
}

TEST(SequencesTest, EachRowBehindTheBurnInBeginsATransitionUnlessItIsFinal) {
  const Layout layout = LayoutOf(Memory());
  for (const int n : {1, 2}) {
    const auto reader =
        TransitionReader::Create(layout, {.n_step = n, .gamma = 0.5, .recurrence = Memory()});
    ASSERT_TRUE(reader.ok()) << reader.status();
    const int length = kBurnIn + kSequence + n;
    std::vector<PpoRow> rows;
    for (int i = 0; i < 2 * length; ++i) {
      const uint32_t ends[] = {0, kTerminated, kTruncated};
      rows.push_back(NumberedRow(i, ends[i == 4 ? 1 : i == length + 1 ? 2 : 0]));
    }
    const std::vector<uint8_t> bytes = PackRows(layout, rows);
    const Transitions b = reader->Read(bytes.data(), 2);

    // The same transitions, one window each.
    const auto plain = TransitionReader::Create(layout, {.n_step = n, .gamma = 0.5});
    int64_t i = 0;
    for (int window = 0; window < 2; ++window) {
      for (int t = kBurnIn; t < kBurnIn + kSequence; ++t) {
        const int row = window * length + t;
        if (row == 4) continue;
        ASSERT_LT(i, b.s.size(0));
        const Transitions one = plain->Read(bytes.data() + row * layout.stride_bytes(), 1);
        for (const auto field : {&Transitions::s, &Transitions::a, &Transitions::r,
                                 &Transitions::gamma, &Transitions::d, &Transitions::s_next}) {
          EXPECT_TRUE((b.*field)[i].equal((one.*field)[0])) << row;
        }
        const Tensor seen = b.rows->in_order.x.narrow(1, kBurnIn, kSequence + n).flatten(0, 1);
        EXPECT_TRUE(seen[b.rows->now[i].item<int64_t>()].equal(b.s[i])) << row;
        EXPECT_TRUE(seen[b.rows->next[i].item<int64_t>()].equal(b.s_next[i])) << row;
        ++i;
      }
    }
    EXPECT_EQ(b.s.size(0), i);
    EXPECT_EQ(b.rows->in_order.burn_in, kBurnIn);
    EXPECT_EQ(b.rows->in_order.stored[1][2][3].item<float>(), length + 2);
    for (int row = 0; row < 2 * length; ++row) {
      const bool fresh = row % length == 0 || row == 5 || row == length + 2;
      EXPECT_EQ(b.rows->in_order.fresh[row / length][row % length].item<bool>(), fresh) << row;
    }
  }
}

TEST(SequencesTest, AColumnOfAnotherSizeIsNamed) {
  proto::Recurrence wider = Memory();
  wider.set_units(kUnits + 1);
  const auto reader =
      TransitionReader::Create(LayoutOf(Memory()), {.n_step = 1, .recurrence = wider});
  EXPECT_EQ(reader.status().message(),
            "column 'recurrent_state' has 8 numbers; the policy's memory has 9");
  EXPECT_FALSE(TransitionReader::Create(LayoutOf({}), {.n_step = 1, .recurrence = wider}).ok());
}

proto::Sac SmallConfig(proto::RecurrenceKind kind) {
  proto::Sac config;
  config.mutable_actor()->add_hidden_sizes(16);
  config.mutable_critic()->add_hidden_sizes(16);
  *config.mutable_recurrence() = Memory(kind);
  for (const auto set :
       {&proto::Sac::set_actor_learning_rate, &proto::Sac::set_critic_learning_rate,
        &proto::Sac::set_alpha_learning_rate}) {
    (config.*set)(0.01);
  }
  config.set_gamma(0);
  config.set_target_entropy_scale(3);
  return config;
}

// Plays a task in which action t is to be 0.6 times observation t - 1, which are random; the reward
// is what is missing, squared.  Episodes end after ten steps.
class RecallTask final {
 public:
  // `policy`: nullptr acts at random.
  std::vector<PpoRow> Play(Policy* policy, int64_t num_rows) {
    std::vector<PpoRow> rows;
    while (static_cast<int64_t>(rows.size()) < num_rows) rows.push_back(Next(policy));
    return rows;
  }

 private:
  PpoRow Next(Policy* policy) {
    PpoRow row{.observation = {uniform_(random_)}};
    row.memory = memory_;
    if (steps_ == 10) {
      row.action = {0};
      row.flags = kTruncated;
      std::fill(memory_.begin(), memory_.end(), 0);
      steps_ = 0;
      last_ = 0;
      return row;
    }
    row.action = {uniform_(random_)};
    if (policy != nullptr) {
      const absl::Status acted = policy->Mode(row.observation, 1, absl::MakeSpan(row.action),
                                              {memory_, absl::MakeSpan(memory_)});
      EXPECT_TRUE(acted.ok()) << acted;
    }
    row.reward = -(row.action[0] - 0.6f * last_) * (row.action[0] - 0.6f * last_);
    last_ = row.observation[0];
    ++steps_;
    return row;
  }

  std::mt19937_64 random_{7};
  std::uniform_real_distribution<float> uniform_{-1, 1};
  std::vector<float> memory_ = std::vector<float>(kUnits);
  float last_ = 0;
  int steps_ = 0;
};

std::unique_ptr<Policy> Publish(const Sac& sac) {
  const std::string image = sac.EncodePolicy({.run = "r", .version = 1}).value();
  auto policy = Policy::FromSnapshot({.run = "r", .version = 1, .image = image});
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

double MeanReward(const std::vector<PpoRow>& rows) {
  double sum = 0;
  for (const PpoRow& row : rows) sum += row.reward;
  return sum / static_cast<double>(rows.size());
}

TEST(SacMemoryTest, LearnsToDoWhatTheLastObservationSaid) {
  const proto::Sac config = SmallConfig(proto::GRU);
  const Layout layout = LayoutOf(config.recurrence());
  const auto sac = Sac::Create({.config = config, .seed = 3}, layout).value();
  RecallTask task;
  EXPECT_LT(MeanReward(task.Play(Publish(*sac).get(), 2000)), -0.08);
  constexpr int64_t kWindows = 32;
  for (int i = 0; i < 300; ++i) {
    const auto rows = task.Play(nullptr, kWindows * SacWindowLength(config));
    ASSERT_TRUE(sac->Update(ToBatch(layout, rows, kWindows), 0).ok());
  }
  EXPECT_GT(MeanReward(task.Play(Publish(*sac).get(), 2000)), -0.02);
}

class SacMemoryKinds : public testing::TestWithParam<proto::RecurrenceKind> {
 protected:
  std::unique_ptr<Sac> Make() const {
    return Sac::Create({.config = config_, .seed = 3}, layout_).value();
  }
  WindowBatch Batch(RecallTask& task) const {
    return ToBatch(layout_, task.Play(nullptr, 4 * SacWindowLength(config_)), 4);
  }

  const proto::Sac config_ = SmallConfig(GetParam());
  const Layout layout_ = LayoutOf(config_.recurrence());
};

TEST_P(SacMemoryKinds, GoesOnBitByBitFromItsFiles) {
  RecallTask task;
  const auto sac = Make();
  ASSERT_TRUE(sac->Update(Batch(task), 0).ok());
  const auto other = Make();
  ASSERT_TRUE(other->Load(sac->Save().value()).ok());
  const WindowBatch batch = Batch(task);
  ASSERT_TRUE(sac->Update(batch, 0).ok());
  ASSERT_TRUE(other->Update(batch, 0).ok());
  EXPECT_EQ(sac->Save().value(), other->Save().value());
}

TEST_P(SacMemoryKinds, BothMemoriesLearnAndTheTargetFollows) {
  RecallTask task;
  const auto sac = Make();
  const auto last = [](FlatParameters& p) {
    return p.values().narrow(0, p.values().numel() - 9, 9).clone();
  };
  const Tensor actor = last(sac->actor().parameters()), critic = last(sac->critics().parameters()),
               target = last(sac->target_critics().parameters());
  ASSERT_TRUE(sac->Update(Batch(task), 0).ok());
  EXPECT_TRUE(last(sac->actor().parameters()).ne(actor).all().item<bool>());
  EXPECT_TRUE(last(sac->critics().parameters()).ne(critic).all().item<bool>());
  EXPECT_TRUE(last(sac->target_critics().parameters()).ne(target).all().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Kinds, SacMemoryKinds, testing::Values(proto::GRU, proto::LSTM),
                         [](const auto& info) { return proto::RecurrenceKind_Name(info.param); });

}  // namespace
}  // namespace troupe
