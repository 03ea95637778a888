// What SAC learns from a replica is what it learns from windows.
#include "learner/replica_transitions.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "learner/replica_builder.h"
#include "learner/sac.h"
#include "tests/unit/replica/made_up_rows.h"

namespace troupe {
namespace {

constexpr double kGamma = 0.9;
constexpr int64_t kRows = 400;

// A replica of one stream of made-up rows.
void Fill(int64_t n_step, Algorithm* algorithm, std::unique_ptr<RamReplicaStore>* ram) {
  const ReplicaBuilder::Options options = {
      .n_step = n_step, .gamma = kGamma, .capacity_rows = 1000};
  const ReplicaShape shape = ReplicaBuilder::ShapeFor(MadeUpLayout(), options).value();
  if (ram != nullptr) *ram = std::make_unique<RamReplicaStore>(shape);
  ReplicaStore* store = ram != nullptr ? ram->get() : algorithm->MakeReplica(shape).value();
  const auto builder = ReplicaBuilder::Create(MadeUpLayout(), options, store).value();
  ASSERT_TRUE(builder->Add(1, 0, MadeUpRows(1, 0, kRows)).ok());
  ASSERT_TRUE(builder->Flush().ok());
}

class ReplicaTransitions : public testing::TestWithParam<int64_t> {};

TEST_P(ReplicaTransitions, AreThoseThatAreReadFromTheWindows) {
  const int64_t n = GetParam();
  std::unique_ptr<RamReplicaStore> ram;
  Fill(n, nullptr, &ram);
  const Transitions drawn = DrawTransitions(*ram, 1000, 3, torch::kFloat32);
  const auto reader =
      TransitionReader::Create(MadeUpLayout(), {.n_step = n, .gamma = kGamma}).value();
  for (int64_t i = 0; i < 1000; ++i) {
    const auto row = static_cast<uint64_t>(drawn.s[i][1].item<float>());
    const std::string window = MadeUpRows(1, row, n + 1);
    const Transitions read = reader.Read(reinterpret_cast<const uint8_t*>(window.data()), 1);
    EXPECT_TRUE(drawn.s[i].equal(read.s[0]));
    EXPECT_TRUE(drawn.a[i].equal(read.a[0]));
    EXPECT_TRUE(drawn.s_next[i].equal(read.s_next[0]));
    EXPECT_NEAR(drawn.r[i].item<float>(), read.r[0].item<float>(), 1e-4);
    EXPECT_NEAR((drawn.gamma[i] * (1 - drawn.d[i])).item<float>(),
                (read.gamma[0] * (1 - read.d[0])).item<float>(), 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Steps, ReplicaTransitions, testing::Values(1, 2, 5, 20));

std::unique_ptr<Sac> MakeSac(uint64_t seed) {
  proto::Sac config;
  config.set_batch_size(16);
  config.mutable_actor()->add_hidden_sizes(8);
  config.mutable_critic()->add_hidden_sizes(8);
  return Sac::Create({.config = config, .seed = seed}, MadeUpLayout()).value();
}

TEST(SacReplica, UpdatesFollowFromTheSeedHoweverManyAreAskedForAtOnce) {
  const auto one_by_one = MakeSac(1), at_once = MakeSac(1), another = MakeSac(2);
  for (Sac* sac : {one_by_one.get(), at_once.get(), another.get()}) Fill(1, sac, nullptr);
  for (int i = 0; i < 12; ++i) ASSERT_TRUE(one_by_one->UpdateFromReplica(1, 0).ok());
  ASSERT_TRUE(at_once->UpdateFromReplica(12, 0).ok());
  ASSERT_TRUE(another->UpdateFromReplica(12, 0).ok());
  EXPECT_EQ(one_by_one->updates(), 12);
  EXPECT_EQ(*one_by_one->Save(), *at_once->Save());
  EXPECT_NE(*another->Save(), *at_once->Save());
}

TEST(SacReplica, ALearnerThatIsResumedDrawsOn) {
  const auto whole = MakeSac(1), first = MakeSac(1), second = MakeSac(9);
  for (Sac* sac : {whole.get(), first.get(), second.get()}) Fill(1, sac, nullptr);
  ASSERT_TRUE(whole->UpdateFromReplica(10, 0).ok());
  ASSERT_TRUE(first->UpdateFromReplica(4, 0).ok());
  ASSERT_TRUE(second->Load(*first->Save()).ok());
  ASSERT_TRUE(second->UpdateFromReplica(6, 0).ok());
  EXPECT_EQ(*second->Save(), *whole->Save());
}

}  // namespace
}  // namespace troupe
