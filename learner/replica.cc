#include "learner/replica.h"

#include <memory>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/config.h"
#include "common/row_codec.h"
#include "learner/prioritized_replica_store.h"
#include "spdlog/spdlog.h"

namespace troupe {
namespace {

// Taken in at once; one has at most 256 KiB.
constexpr int kReplies = 16;
constexpr int64_t kRowsInBlock = 64;

// What the replica is to hold.  FAILED_PRECONDITION: the shards cut other windows.
absl::StatusOr<ReplicaBuilder::Options> WindowsOf(const proto::Config& config,
                                                  const proto::Table& rule, const TableInfo& table,
                                                  size_t num_shards) {
  const int64_t n_step = config.learner().sac().n_step();
  if (table.window_length != n_step + 1 || table.window_stride != rule.window().stride()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the shards cut windows of ", table.window_length, " rows every ", table.window_stride,
        ", the config says ", n_step + 1, " every ", rule.window().stride()));
  }
  const int64_t blocks = (rule.capacity_rows() + kRowsInBlock - 1) / kRowsInBlock;
  return ReplicaBuilder::Options{
      .n_step = n_step,
      .gamma = config.learner().sac().gamma(),
      .window_stride = table.window_stride,
      .start_at_final_rows = rule.window().start_at_final_rows(),
      .capacity_rows = static_cast<uint64_t>(blocks * kRowsInBlock * num_shards)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Replica>> Replica::Create(const proto::Config& config,
                                                         std::shared_ptr<ShardDirectory> directory,
                                                         const TableInfo& table,
                                                         Algorithm& algorithm) {
  const proto::Learner& learner = config.learner();
  const absl::StatusOr<proto::Table> rule = EffectiveTable(config, learner.table());
  if (!rule.ok()) return rule.status();
  const absl::StatusOr<ReplicaBuilder::Options> options =
      WindowsOf(config, *rule, table, directory->size());
  if (!options.ok()) return options.status();
  const absl::StatusOr<ReplicaShape> shape = ReplicaBuilder::ShapeFor(table.layout, *options);
  if (!shape.ok()) return shape.status();
  const int64_t size_bytes =
      shape->size_bytes() + (rule->selector() == proto::PRIORITIZED
                                 ? PrioritizedReplicaStore::TreeBytes(shape->capacity)
                                 : 0);
  if (size_bytes > learner.max_replica_bytes()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a replica of ", options->capacity_rows,
                     " rows, all shards' capacity_rows together, takes ", size_bytes,
                     " bytes; learner.max_replica_bytes is ", learner.max_replica_bytes()));
  }
  const absl::StatusOr<ReplicaStore*> store = algorithm.MakeReplica(*shape);
  if (!store.ok()) return store.status();
  auto builder = ReplicaBuilder::Create(table.layout, *options, *store);
  if (!builder.ok()) return builder.status();
  std::shared_ptr<const RowCodec> codec;
  if (table.layout.has_compressed_columns()) codec = std::make_shared<RowCodec>(table.layout);
  auto follower = FollowClient::Create({.directory = std::move(directory),
                                        .run = config.run(),
                                        .table = learner.table(),
                                        .capacity_rows = rule->capacity_rows(),
                                        .stride_bytes = table.layout.stride_bytes(),
                                        .codec = std::move(codec)});
  if (!follower.ok()) return follower.status();
  spdlog::info("a replica of {} rows in the learner's memory: {} MiB", options->capacity_rows,
               size_bytes >> 20);
  return absl::WrapUnique(new Replica(*std::move(follower), *std::move(builder)));
}

absl::Status Replica::Absorb(absl::Time deadline) {
  for (int i = 0; i < kReplies; ++i) {
    const auto reply = follower_->Next(i == 0 ? deadline : absl::InfinitePast());
    if (absl::IsDeadlineExceeded(reply.status())) break;
    if (!reply.ok()) return reply.status();
    for (const proto::FollowedRows& run : reply->runs()) {
      absl::Status status = builder_->Add(run.stream(), run.first_row(), run.rows());
      if (!status.ok()) return status;
    }
  }
  return builder_->Flush();
}

bool Replica::IsReady() {
  // Of a shard that comes later, the rows come while there are updates.
  was_ready_ = was_ready_ || follower_->stats().caught_up;
  return was_ready_ && builder_->size() > 0;
}

}  // namespace troupe
