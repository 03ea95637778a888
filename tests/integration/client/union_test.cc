// Draws over three real shards of very different sizes, as if they were one table.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "actor/row_writer.h"
#include "common/replay_client.h"
#include "replay_server/server.h"
#include "tests/unit/client/small_layout.h"
#include "tests/unit/replay_server/rows.h"

namespace troupe {
namespace {

constexpr int64_t kWindows[] = {300, 3000, 30000};  // of each shard
constexpr int64_t kAllWindows = 33300;
constexpr int64_t kBatch = 4096;

absl::Time Soon() { return absl::Now() + absl::Minutes(2); }

struct UnionCase {
  std::string name;
  proto::SelectorKind selector = proto::UNIFORM;
  double exponent = 0;  // of the priority in the weight of a window
};

// The windows are numbered over all shards; the first row of a window holds its number.
class UnionTest : public ::testing::TestWithParam<UnionCase> {
 protected:
  void SetUp() override {
    std::uniform_real_distribution<float> any(0.2f, 4.0f);
    for (size_t shard = 0; shard < std::size(kWindows); ++shard) {
      StartShard(shard);
      Fill(shard, [&] { return any(random_); });
    }
    ReplayClientOptions options;
    options.shards = addresses_;
    options.run = "run";
    options.table = "replay";
    options.batch_size = kBatch;
    auto client = ReplayClient::Create(options);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    const auto table = client_->WaitForTable(Soon());
    ASSERT_TRUE(table.ok()) << table.status();
  }

  void StartShard(size_t shard) {
    TableOptions table;
    table.name = "replay";
    table.capacity_rows = 40000;
    table.selector = GetParam().selector;
    table.priority_exponent = GetParam().exponent;
    ShardOptions options;
    options.data_dir = dir_.File("shard" + std::to_string(shard));
    options.tables.push_back(table);
    auto server = Server::Start("127.0.0.1:0", options);
    ASSERT_TRUE(server.ok()) << server.status();
    addresses_.push_back("127.0.0.1:" + std::to_string((*server)->port()));
    servers_.push_back(*std::move(server));
  }

  // One stream, whose rows bring their own priorities.
  template <typename AnyPriority>
  void Fill(size_t shard, const AnyPriority& any_priority) {
    RowWriterOptions options;
    options.shards = {addresses_[shard]};
    options.run = "run";
    options.table = "replay";
    auto writer = RowWriter::Create(options, *Layout::FromProto(testing::SmallLayout()));
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (int64_t row = 0; row <= kWindows[shard]; ++row) {
      const auto number = static_cast<double>(priorities_.size());
      const float priority = any_priority();
      const auto appended = (*writer)->Append(0, [&](absl::Span<char> bytes) {
        WriteRowHeader({.priority = priority}, bytes.data());
        std::memcpy(bytes.data() + sizeof(RowHeader), &number, sizeof(number));
      });
      ASSERT_TRUE(appended.ok()) << appended.status();
      if (row < kWindows[shard]) priorities_.push_back(priority);
    }
    ASSERT_TRUE((*writer)->Flush(Soon()).ok());
  }

  double Weight(size_t window) const { return std::pow(priorities_[window], GetParam().exponent); }
  double TotalWeight() const {
    double total = 0;
    for (size_t window = 0; window < priorities_.size(); ++window) total += Weight(window);
    return total;
  }

  static size_t Number(const WindowBatch& batch, int64_t window) {
    double number = 0;
    std::memcpy(&number, batch.row(window, 0) + sizeof(RowHeader), sizeof(number));
    return static_cast<size_t>(number);
  }

  WindowBatch Next() {
    auto batch = client_->NextBatch(Soon());
    EXPECT_TRUE(batch.ok()) << batch.status();
    return batch.ok() ? *std::move(batch) : WindowBatch();
  }

  // Draws many batches; every window must come as often as its weight says.
  void CheckDraws() {
    constexpr int kBatches = 250;
    std::vector<int64_t> counts(kAllWindows);
    for (int i = 0; i < kBatches; ++i) {
      const WindowBatch batch = Next();
      for (int64_t w = 0; w < batch.num_windows; ++w) ++counts[Number(batch, w)];
    }
    const double per_weight = kBatches * static_cast<double>(kBatch) / TotalWeight();
    double chi_squared = 0;
    for (size_t window = 0; window < counts.size(); ++window) {
      const double expected = per_weight * Weight(window);
      const double off = static_cast<double>(counts[window]) - expected;
      chi_squared += off * off / expected;
    }
    // As many degrees of freedom as windows, less one; five standard deviations.
    EXPECT_NEAR(chi_squared, kAllWindows - 1, 5 * std::sqrt(2.0 * kAllWindows));
  }

  // The probability of every window of a batch is its weight's part of the union's, and its
  // importance weight follows from it.
  void CheckProbabilities() {
    const WindowBatch batch = Next();
    const double total = TotalWeight();
    const std::vector<float> weights = ImportanceWeights(batch.buffer->probabilities, 0.4);
    double least = total;
    for (int64_t w = 0; w < batch.num_windows; ++w) {
      const double weight = Weight(Number(batch, w));
      least = std::min(least, weight);
      EXPECT_NEAR(batch.buffer->probabilities[w] * total / weight, 1, 1e-4);
    }
    for (int64_t w = 0; w < batch.num_windows; ++w) {
      EXPECT_NEAR(weights[w], std::pow(least / Weight(Number(batch, w)), 0.4), 1e-4);
    }
  }

  // Gives new priorities to every window that is drawn for a while, and waits until all shards
  // have them and nothing is under way that was drawn before.
  void ChangePriorities() {
    std::uniform_real_distribution<float> any(0.2f, 4.0f);
    for (int i = 0; i < 40; ++i) {
      const WindowBatch batch = Next();
      std::vector<float> changed(kBatch);
      for (int64_t w = 0; w < kBatch; ++w) {
        changed[w] = any(random_);
        priorities_[Number(batch, w)] = changed[w];
      }
      const absl::Status status =
          client_->UpdatePriorities(batch.buffer->shards, batch.buffer->row_ids, changed);
      ASSERT_TRUE(status.ok()) << status;
    }
    const auto sent = [this] { return client_->stats().priorities_sent == 40 * kBatch; };
    while (!sent() || std::abs(client_->stats().mass / TotalWeight() - 1) > 1e-6) Next();
    for (int i = 0; i < 20; ++i) Next();
  }

  TempDir dir_;
  std::mt19937_64 random_{5};
  std::vector<float> priorities_;  // by window
  std::vector<std::string> addresses_;
  std::vector<std::unique_ptr<Server>> servers_;
  std::unique_ptr<ReplayClient> client_;
};

TEST_P(UnionTest, DrawsFollowThePrioritiesOfTheUnion) {
  CheckProbabilities();
  CheckDraws();
}

INSTANTIATE_TEST_SUITE_P(Selectors, UnionTest,
                         ::testing::Values(UnionCase{"Uniform", proto::UNIFORM, 0},
                                           UnionCase{"Prioritized", proto::PRIORITIZED, 1},
                                           UnionCase{"PrioritizedByExponent", proto::PRIORITIZED,
                                                     0.6}),
                         [](const auto& info) { return info.param.name; });

class ChangedPrioritiesTest : public UnionTest {};

TEST_P(ChangedPrioritiesTest, DrawsFollowTheNewPriorities) {
  ChangePriorities();
  CheckProbabilities();
  CheckDraws();
  EXPECT_EQ(client_->stats().priorities_dropped, 0);
}

INSTANTIATE_TEST_SUITE_P(Selectors, ChangedPrioritiesTest,
                         ::testing::Values(UnionCase{"PrioritizedByExponent", proto::PRIORITIZED,
                                                     0.6}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace troupe
