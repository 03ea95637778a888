// PPO with a memory: does the learner see what the actor saw?
#include <random>
#include <string>

#include "common/policy.h"
#include "gtest/gtest.h"
#include "learner/ppo.h"
#include "tests/unit/learner/ppo_rows.h"

namespace troupe {
namespace {

using torch::Tensor;

constexpr int kStates = 3, kUnits = 5;
constexpr int64_t kLength = 16, kWindows = 4, kSequence = 4;

struct MemoryCase {
  std::string name;
  proto::RecurrenceKind kind;
  bool discrete;
  proto::Surrogate surrogate;
};

void PrintTo(const MemoryCase& c, std::ostream* out) { *out << c.name; }

class PpoMemoryTest : public testing::TestWithParam<MemoryCase> {
 protected:
  PpoMemoryTest() {
    config_.set_unroll_length(kLength);
    config_.set_batch_windows(kWindows);
    config_.set_epochs(3);
    config_.set_minibatch_size(16);
    config_.set_learning_rate(3e-3);
    config_.set_surrogate(GetParam().surrogate);
    config_.mutable_recurrence()->set_kind(GetParam().kind);
    config_.mutable_recurrence()->set_units(kUnits);
    config_.mutable_recurrence()->set_sequence_length(kSequence);
    proto::Layout layout = GetParam().discrete
                               ? DiscreteLayout(kStates, {3}).proto()
                               : ContinuousLayout(kStates, {-1, -2}, {1, 6}).proto();
    AddColumn(kRecurrentState, proto::FLOAT32, StateSize(config_.recurrence()), layout);
    layout_ = *Layout::FromProto(layout);
    memory_.resize(StateSize(config_.recurrence()));
    ppo_ = MakePpo();
  }

  std::unique_ptr<Ppo> MakePpo() const {
    return Ppo::Create({.config = config_, .total_env_steps = 1000, .seed = 1}, layout_).value();
  }
  std::unique_ptr<Policy> Publish(uint64_t version) const {
    const std::string image = ppo_->EncodePolicy({.run = "r", .version = version}).value();
    auto policy = Policy::FromSnapshot({.run = "r", .version = version, .image = image});
    EXPECT_TRUE(policy.ok()) << policy.status();
    return *std::move(policy);
  }

  // A batch that one environment of `policy` made, window by window; an episode ends in row 5.
  std::vector<PpoRow> Collect(Policy& policy, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal(2, 3);
    policy.Seed(seed);
    std::vector<PpoRow> rows;
    for (int64_t i = 0; i < kWindows * (kLength + 1); ++i) {
      const int64_t t = i % (kLength + 1);
      PpoRow row{.flags = t == kLength ? uint32_t{kCut} : t == 5 ? uint32_t{kTerminated} : 0};
      for (int j = 0; j < kStates; ++j) row.observation.push_back(normal(random));
      row.memory = memory_;
      if (row.flags == 0) Act(policy, row);
      if (t == 5) std::fill(memory_.begin(), memory_.end(), 0);
      row.reward = row.flags == 0 ? normal(random) : 0;
      rows.push_back(row);
    }
    return rows;
  }
  void Act(Policy& policy, PpoRow& row) {
    std::vector<float> env(policy.metadata().action_size), drawn(env.size());
    const absl::Status acted = policy.Sample(
        row.observation, 1,
        {absl::MakeSpan(env), absl::MakeSpan(drawn), absl::MakeSpan(&row.log_prob, 1)},
        {memory_, absl::MakeSpan(memory_)});
    EXPECT_TRUE(acted.ok()) << acted;
    if (GetParam().discrete) row.choices.assign(drawn.begin(), drawn.end());
    if (!GetParam().discrete) row.action = drawn;
  }
  Ppo::Steps Prepare(const std::vector<PpoRow>& rows) {
    const std::vector<uint8_t> bytes = PackRows(layout_, rows);
    const UnrollReader reader =
        UnrollReader::Create(layout_, {.state_size = StateSize(config_.recurrence())}).value();
    return ppo_->Prepare(reader.Read(bytes.data(), kWindows, kLength + 1));
  }
  absl::Status Update(Ppo& ppo, const std::vector<PpoRow>& rows) {
    return ppo.Update(ToBatch(layout_, rows, kWindows), 0);
  }

  proto::Ppo config_;
  Layout layout_ = DiscreteLayout(1, {2});
  std::vector<float> memory_;  // of the one environment
  std::unique_ptr<Ppo> ppo_;
};

// Whole unrolls from their stored states and short sequences from theirs give the same policy, that
// of the actor, also after networks and normalizer have moved.
TEST_P(PpoMemoryTest, TheRatioIsOneOnTheFirstMinibatch) {
  for (uint64_t version = 1; version <= 4; ++version) {
    const std::vector<PpoRow> rows = Collect(*Publish(version), version);
    const Ppo::Steps sequences = Prepare(rows);
    EXPECT_EQ(sequences.size(), kWindows * kLength / kSequence);
    const Ppo::Steps steps = ppo_->Seen(sequences);
    EXPECT_EQ(steps.size(), kWindows * (kLength - 1));
    const Tensor log_pi = ppo_->actor().LogProb(ppo_->actor().Head(steps.s), steps.a).detach();
    EXPECT_LT(((log_pi - steps.log_mu).exp() - 1).abs().max().item<double>(), 2e-5);
    EXPECT_TRUE(torch::allclose(ppo_->critic().Value(steps.s), steps.v_old, 1e-4, 1e-5));
    if (steps.old_head.defined()) {
      EXPECT_TRUE(torch::allclose(ppo_->actor().Head(steps.s), steps.old_head, 1e-4, 1e-5));
    }
    ASSERT_TRUE(Update(*ppo_, rows).ok());
  }
}

// What the actor wrote before each row is what the rows before it lead to.
TEST_P(PpoMemoryTest, StoredStatesAreTheRecomputedOnes) {
  const std::unique_ptr<Policy> policy = Publish(1);
  const std::vector<PpoRow> rows = Collect(*policy, 1);
  const Ppo::Steps all = Prepare(rows);
  const Tensor whole = ppo_->actor().See(
      {.x = all.s.view({kWindows, kLength, -1}),
       .stored = all.memory.view({kWindows, kLength, -1}),
       .fresh = torch::arange(kLength).remainder(6).eq(0).expand({kWindows, -1})});
  for (int64_t i = 0; i < kWindows; ++i) {
    for (int64_t t = 0; t + 1 < kLength; ++t) {
      if (t == 4 || t == 5) continue;  // the last step of an episode, and its last observation
      const Tensor output = whole[i][t].narrow(0, kStates, kUnits);
      const std::vector<float>& next = rows[i * (kLength + 1) + t + 1].memory;
      EXPECT_TRUE(torch::allclose(output, torch::tensor(next).narrow(0, 0, kUnits), 1e-4, 1e-5))
          << i << " " << t;
    }
  }
}

TEST_P(PpoMemoryTest, GoesOnBitByBitFromItsFilesAndTheMemoryLearns) {
  const Tensor before = ppo_->actor().parameters().values().clone();
  ASSERT_TRUE(Update(*ppo_, Collect(*Publish(1), 1)).ok());
  EXPECT_TRUE(ppo_->actor().parameters().values().ne(before).all().item<bool>());
  EXPECT_EQ(ppo_->updates(), config_.epochs() * kWindows * kLength / 16);
  const auto other = MakePpo();
  ASSERT_TRUE(other->Load(ppo_->Save().value()).ok());
  const std::vector<PpoRow> rows = Collect(*Publish(2), 2);
  ASSERT_TRUE(Update(*ppo_, rows).ok());
  ASSERT_TRUE(Update(*other, rows).ok());
  EXPECT_EQ(other->Save().value(), ppo_->Save().value());
}

INSTANTIATE_TEST_SUITE_P(
    Policies, PpoMemoryTest,
    testing::Values(MemoryCase{"GruGaussian", proto::GRU, false, proto::CLIP},
                    MemoryCase{"LstmGaussian", proto::LSTM, false, proto::CLIP},
                    MemoryCase{"GruChoices", proto::GRU, true, proto::CLIP},
                    MemoryCase{"LstmKlPenalty", proto::LSTM, false, proto::KL_PENALTY}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace troupe
