#include "common/recurrent.h"

#include "common/recurrent_states.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using torch::Tensor;

constexpr int64_t kBatch = 3, kLength = 7, kInputs = 2, kUnits = 4;

proto::Recurrence Spec(proto::RecurrenceKind kind) {
  proto::Recurrence spec;
  spec.set_kind(kind);
  spec.set_units(kUnits);
  return spec;
}

class RecurrentTest : public testing::TestWithParam<proto::RecurrenceKind> {
 protected:
  RecurrentTest() { parameters_.Initialize(3); }

  // Rows of which some follow the end of an episode.
  RowSequences Rows(int64_t burn_in = 0) const {
    torch::manual_seed(5);
    RowSequences rows{
        .x = torch::randn({kBatch, kLength, kInputs}, torch::kFloat64),
        .stored = torch::randn({kBatch, kLength, StateSize(layer_.spec)}, torch::kFloat64),
        .fresh = torch::zeros({kBatch, kLength}, torch::kBool),
        .burn_in = burn_in};
    rows.fresh.select(1, 0).fill_(true);
    rows.fresh[1][2] = true;
    rows.fresh[2][5] = true;
    return rows;
  }
  Tensor See(const RowSequences& rows) const {
    return SeeSequences(layer_, parameters_.trainable(), rows);
  }
  std::vector<Tensor> Own() const {
    const auto& all = parameters_.frozen();
    return {all.begin() + static_cast<int64_t>(layer_.first_parameter), all.end()};
  }

  const MlpShape network_{.inputs = kInputs + kUnits, .outputs = 1};
  const RecurrentLayer layer_ = LayerBefore(network_, Spec(GetParam()), kInputs);
  FlatParameters parameters_{RecurrentParameters(network_, layer_), torch::kFloat64};
};

TEST_P(RecurrentTest, AStepIsPyTorchsCell) {
  torch::manual_seed(1);
  const Tensor x = torch::randn({kBatch, kInputs}, torch::kFloat64);
  const Tensor state = torch::randn({kBatch, StateSize(layer_.spec)}, torch::kFloat64);
  const std::vector<Tensor> own = Own();
  const Tensor w_x = own[0].t(), b_x = own[1], w_h = own[2].t(), b_h = own[3];
  Tensor expected;
  if (GetParam() == proto::GRU) {
    expected = torch::gru_cell(x, state, w_x, w_h, b_x, b_h);
  } else {
    const std::vector<Tensor> hc = {state.narrow(1, 0, kUnits), state.narrow(1, kUnits, kUnits)};
    const auto [h, c] = torch::lstm_cell(x, hc, w_x, w_h, b_x, b_h);
    expected = torch::cat({h, c}, 1);
  }
  const Tensor ours = RecurrentStep(layer_, parameters_.frozen(), x, state);
  EXPECT_TRUE(torch::allclose(ours, expected, 1e-12, 1e-12));
}

TEST_P(RecurrentTest, ASequenceIsItsRowsStepByStepFromTheStoredStateWhereItIsFresh) {
  const RowSequences rows = Rows();
  const Tensor seen = See(rows);
  ASSERT_EQ(seen.sizes().vec(), (std::vector<int64_t>{kBatch, kLength, kInputs + kUnits}));
  EXPECT_TRUE(seen.narrow(2, 0, kInputs).equal(rows.x));
  for (int64_t i = 0; i < kBatch; ++i) {
    Tensor state;
    for (int64_t t = 0; t < kLength; ++t) {
      if (rows.fresh[i][t].item<bool>()) state = rows.stored[i][t].unsqueeze(0);
      state = RecurrentStep(layer_, parameters_.frozen(), rows.x[i][t].unsqueeze(0), state);
      EXPECT_TRUE(torch::allclose(seen[i][t].narrow(0, kInputs, kUnits),
                                  state[0].narrow(0, 0, kUnits), 1e-12, 1e-12))
          << i << " " << t;
    }
  }
}

TEST_P(RecurrentTest, WithoutStoredStatesEveryEpisodeBeginsWithZeros) {
  RowSequences zeros = Rows();
  zeros.stored.zero_();
  RowSequences none = zeros;
  none.stored = Tensor();
  EXPECT_TRUE(See(none).equal(See(zeros)));
}

TEST_P(RecurrentTest, BurnInChangesWhereGradientsEndAndNothingElse) {
  const RowSequences whole = Rows(), burnt = Rows(/*burn_in=*/3);
  const Tensor seen = See(burnt);
  EXPECT_TRUE(torch::allclose(seen, See(whole).narrow(1, 3, kLength - 3), 1e-12, 1e-12));

  // From the state after the burn-in on, as if the rest were the sequence.
  RowSequences rest = whole;
  for (Tensor* part : {&rest.x, &rest.stored, &rest.fresh}) *part = part->narrow(1, 3, kLength - 3);
  rest.stored = rest.stored.clone();
  rest.fresh = rest.fresh.clone();
  rest.fresh.select(1, 0).fill_(true);
  for (int64_t i = 0; i < kBatch; ++i) {
    Tensor state;
    for (int64_t t = 0; t < 3; ++t) {
      if (whole.fresh[i][t].item<bool>()) state = whole.stored[i][t].unsqueeze(0);
      state = RecurrentStep(layer_, parameters_.frozen(), whole.x[i][t].unsqueeze(0), state);
    }
    rest.stored[i][0] = state[0];
  }
  seen.sin().sum().backward();
  const Tensor gradient = parameters_.gradients().clone();
  parameters_.gradients().zero_();
  See(rest).sin().sum().backward();
  EXPECT_TRUE(torch::allclose(gradient, parameters_.gradients(), 1e-10, 1e-12));
}

// The pass with a gradient of its own against autograd through one cell after another.
TEST_P(RecurrentTest, OnTheCpuStatesAndGradientsAreThoseOfTheCells) {
  const std::vector<Tensor> own = Own();
  const RowSequences rows = Rows();
  const auto run = [&](Tensor (*states_of)(const RecurrentInputs&)) {
    const Tensor gates_x =
        (rows.x.transpose(0, 1).flatten(0, 1).mm(own[0]) + own[1]).view({kLength, kBatch, -1});
    std::vector<Tensor> leaves = {gates_x, own[2], own[3]};
    for (Tensor& leaf : leaves) leaf = leaf.detach().clone().requires_grad_(true);
    const Tensor states = states_of({.kind = GetParam(),
                                     .gates_x = leaves[0],
                                     .weight = leaves[1],
                                     .bias = leaves[2],
                                     .fresh = rows.fresh.t(),
                                     .stored = rows.stored.transpose(0, 1)});
    (states * torch::linspace(-1, 1, states.numel(), torch::kFloat64).view_as(states))
        .sum()
        .backward();
    return std::vector<Tensor>{states, leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
  };
  const std::vector<Tensor> by_hand = run(StatesOnCpu), by_cells = run(StatesCellByCell);
  for (size_t i = 0; i < by_hand.size(); ++i) {
    EXPECT_TRUE(torch::allclose(by_hand[i], by_cells[i], 1e-10, 1e-12)) << i;
  }
}

TEST_P(RecurrentTest, GradientsAreTheFiniteDifferences) {
  const Tensor weights =
      torch::linspace(-1, 1, kBatch * kLength * (kInputs + kUnits), torch::kFloat64)
          .view({kBatch, kLength, -1});
  const auto loss = [&] { return (See(Rows()) * weights).sum(); };
  loss().backward();
  const torch::NoGradGuard no_grad;
  const int64_t first =
      parameters_.values().numel() - (kInputs + kUnits + 2) * Own()[1].numel();  // the layer's
  for (int64_t i = first; i < parameters_.values().numel(); i += 3) {
    constexpr double kStep = 1e-6;
    const Tensor value = parameters_.values()[i];
    const double at = value.item<double>();
    value.fill_(at + kStep);
    const double above = loss().item<double>();
    value.fill_(at - kStep);
    const double below = loss().item<double>();
    value.fill_(at);
    EXPECT_NEAR(parameters_.gradients()[i].item<double>(), (above - below) / (2 * kStep), 1e-7)
        << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, RecurrentTest, testing::Values(proto::GRU, proto::LSTM),
                         [](const auto& info) { return proto::RecurrenceKind_Name(info.param); });

TEST(NoRecurrence, ChangesNothing) {
  const MlpShape network{.inputs = 2, .outputs = 1};
  const RecurrentLayer layer = LayerBefore(network, {}, 2);
  EXPECT_EQ(StateSize(layer.spec), 0);
  const FlatParameters parameters(RecurrentParameters(network, layer), torch::kFloat32);
  const FlatParameters plain(MlpParameters(network), torch::kFloat32);
  EXPECT_EQ(parameters.values().numel(), plain.values().numel());
  const Tensor x = torch::randn({2, 3, 2});
  EXPECT_TRUE(SeeSequences(layer, parameters.frozen(), {.x = x}).is_same(x));
}

}  // namespace
}  // namespace troupe
