// troupe-learner: samples the replay shards, improves the policy, publishes snapshots of it.
#include <malloc.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include "absl/flags/declare.h"
#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/checkpoint.h"
#include "common/config.h"
#include "common/find_shards.h"
#include "common/frame_stack.h"
#include "common/program.h"
#include "common/replay_client.h"
#include "common/snapshot_client.h"
#include "learner/batch_source.h"
#include "learner/fused/cuda_sac_engine.h"
#include "learner/make_algorithm.h"
#include "learner/on_policy_batches.h"
#include "learner/progress_log.h"
#include "learner/rank_group.h"
#include "learner/replica.h"
#include "learner/shared_batches.h"
#include "learner/trainer.h"

ABSL_FLAG(std::string, run_dir, "",
          "Folder of the run: checkpoints, learner.jsonl, TensorBoard files.  A run that has begun "
          "there is resumed.");
ABSL_FLAG(int, rank, 0,
          "Which of the config's learner.ranks this is, from 0; those above write to "
          "rank-N of the run's folder, and nothing but their log.");

namespace troupe {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(500);
constexpr absl::Duration kBetweenMessages = absl::Seconds(10);

absl::StatusOr<ReplayClientOptions> ReplayOptions(
    const Program& program, const std::shared_ptr<ShardDirectory>& directory) {
  const proto::Config& config = program.config;
  const proto::Learner& learner = config.learner();
  const absl::StatusOr<proto::Table> table = EffectiveTable(config, learner.table());
  if (!table.ok()) return table.status();
  const proto::RateLimiter& limiter = table->rate_limiter();
  ReplayClientOptions options;
  options.directory = directory;
  options.credentials = program.credentials;
  options.run = config.run();
  options.table = learner.table();
  options.batch_size = SampledAtOnce(config);
  // Rank 0 counts what all of them draw.
  if (learner.sampling() == proto::REPLICA) options.batch_size *= learner.ranks();
  options.prefetch_batches = learner.prefetch_batches();
  options.rate_limit = {.min_size = limiter.min_size(),
                        .samples_per_insert = limiter.samples_per_insert(),
                        .slack = limiter.slack()};
  options.seed = config.seed() + (uint64_t{1} << 32) * absl::GetFlag(FLAGS_rank);
  options.samples_once = learner.has_ppo();
  // It sees within this time that rows no longer come.
  if (learner.has_ppo()) options.request_timeout = absl::Milliseconds(200);
  return options;
}

SnapshotClientOptions PublisherOptions(const Program& program,
                                       const std::shared_ptr<ShardDirectory>& directory) {
  const proto::Config& config = program.config;
  return {.directory = directory,
          .credentials = program.credentials,
          .run = config.run(),
          .max_snapshot_bytes = config.replay_server().max_snapshot_bytes()};
}

// CANCELLED if a stop was requested first.
absl::StatusOr<TableInfo> AwaitTable(ReplayClient& replay, const StopToken& stop) {
  absl::Time next_message = absl::Now() + kBetweenMessages;
  while (!stop.requested()) {
    absl::StatusOr<TableInfo> table = replay.WaitForTable(absl::Now() + kPoll);
    if (!absl::IsDeadlineExceeded(table.status())) return table;
    if (absl::Now() >= next_message) {
      spdlog::info("waiting for the first actor: {}", std::string(table.status().message()));
      next_message = absl::Now() + kBetweenMessages;
    }
  }
  return absl::CancelledError("stopped before the first actor came");
}

std::unique_ptr<BatchSource> MakeBatches(const proto::Config& config, const TableInfo& table,
                                         ReplayClient& replay, RankGroup* ranks) {
  if (!config.learner().has_ppo()) return std::make_unique<SampledBatches>(replay);
  const proto::Ppo& ppo = config.learner().ppo();
  auto batches = std::make_unique<OnPolicyBatches>(
      replay,
      OnPolicyBatches::Options{.batch_windows = config.learner().ranks() * ppo.batch_windows(),
                               .window_length = table.window_length,
                               .lead_rows = LeadRows(ppo),
                               .stride_bytes = table.layout.stride_bytes(),
                               .max_policy_lag = ppo.max_policy_lag()});
  if (ranks == nullptr) return batches;
  return std::make_unique<SharedBatches>(
      std::move(batches), *ranks,
      SharedBatches::Options{.batch_windows = ppo.batch_windows(),
                             .window_length = table.window_length,
                             .stride_bytes = table.layout.stride_bytes()});
}

// Null if the algorithm gets its batches from the shards.
absl::StatusOr<std::unique_ptr<Replica>> MakeReplica(
    const Program& program, const std::shared_ptr<ShardDirectory>& directory,
    const TableInfo& table, Algorithm& algorithm) {
  const proto::Config& config = program.config;
  if (config.learner().sampling() != proto::REPLICA) return nullptr;
  return Replica::Create(config, directory, table, algorithm);
}

// Ranks of one machine that say "cuda" get a GPU each: NCCL refuses two on one.
void ShareDevices(proto::Learner& learner) {
  const int devices = CudaDeviceCount();
  if (learner.ranks() == 1 || learner.device() != "cuda" || devices == 0) return;
  learner.set_device(absl::StrCat("cuda:", absl::GetFlag(FLAGS_rank) % devices));
}

// Null: one learner alone.
absl::StatusOr<std::unique_ptr<RankGroup>> Join(const Program& program) {
  const proto::Learner& learner = program.config.learner();
  if (learner.ranks() == 1) return nullptr;
  return JoinRanks({.rank = absl::GetFlag(FLAGS_rank),
                    .size = learner.ranks(),
                    .rendezvous = learner.rendezvous(),
                    .device = learner.device()},
                   [&] { return program.stop.requested(); });
}

// The folder that this rank writes to.
absl::StatusOr<std::string> RunDir(const proto::Learner& learner) {
  const std::string run_dir = absl::GetFlag(FLAGS_run_dir);
  if (run_dir.empty()) return absl::InvalidArgumentError("--run_dir is missing");
  const int rank = absl::GetFlag(FLAGS_rank);
  if (rank < 0 || rank >= learner.ranks()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--rank ", rank, ": learner.ranks = ", learner.ranks()));
  }
  return rank == 0 ? run_dir : absl::StrCat(run_dir, "/rank-", rank);
}

absl::Status Run(Program& program) {
  const proto::Config& config = program.config;
  const absl::StatusOr<std::string> run_dir = RunDir(config.learner());
  if (!run_dir.ok()) return run_dir.status();
  ShareDevices(*program.config.mutable_learner());
  const auto log = ProgressLog::Create(*run_dir, program.metrics);
  if (!log.ok()) return log.status();
  program.metrics
      .AddGauge("troupe_learner_target_env_steps", "Environment steps at which the run is over.")
      .Set(static_cast<double>(config.total_env_steps()));
  const auto directory = FindShards(program);
  if (absl::IsCancelled(directory.status())) return absl::OkStatus();
  if (!directory.ok()) return directory.status();
  const absl::StatusOr<ReplayClientOptions> options = ReplayOptions(program, *directory);
  if (!options.ok()) return options.status();
  const auto replay = ReplayClient::Create(*options);
  if (!replay.ok()) return replay.status();
  const auto publisher = SnapshotPublisher::Create(PublisherOptions(program, *directory));
  if (!publisher.ok()) return publisher.status();
  const absl::StatusOr<TableInfo> table = AwaitTable(**replay, program.stop);
  if (absl::IsCancelled(table.status())) return absl::OkStatus();
  if (!table.ok()) return table.status();
  const auto ranks = Join(program);
  if (absl::IsCancelled(ranks.status())) return absl::OkStatus();
  if (!ranks.ok()) return ranks.status();
  const auto algorithm = MakeAlgorithm(config, table->layout, ranks->get());
  if (!algorithm.ok()) return algorithm.status();
  CheckpointDirectory checkpoints(absl::StrCat(*run_dir, "/checkpoints"),
                                  config.learner().keep_checkpoints());
  const auto state =
      *ranks == nullptr
          ? Resume(checkpoints, config.run(), table->max_epoch, **algorithm)
          : ResumeTogether(checkpoints, config.run(), table->max_epoch, **ranks, **algorithm);
  if (!state.ok()) return state.status();
  const auto replica = MakeReplica(program, *directory, *table, **algorithm);
  if (!replica.ok()) return replica.status();
  const std::unique_ptr<BatchSource> batches = MakeBatches(config, *table, **replay, ranks->get());
  Trainer trainer(config,
                  {.replay = **replay,
                   .batches = *batches,
                   .publisher = **publisher,
                   .algorithm = **algorithm,
                   .checkpoints = checkpoints,
                   .log = **log,
                   .stop = program.stop,
                   .replica = replica->get(),
                   .ranks = ranks->get()},
                  *state);
  spdlog::info("learning {} on {}: {} updates done, {} to do", config.run(),
               config.learner().device(), (*algorithm)->updates(),
               trainer.target_updates() == 0 ? "as many as the steps take"
                                             : absl::StrCat(trainer.target_updates()));
  return trainer.Run();
}

// OpenBLAS beside LibTorch's own threads falls to a third of its speed, and reads its number of
// threads only when it is loaded.
void StartAgainWithOneBlasThread(char** argv) {
  constexpr char kVariable[] = "OPENBLAS_NUM_THREADS";
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error || std::getenv(kVariable) != nullptr || setenv(kVariable, "1", 1) != 0) return;
  execv(self.c_str(), argv);  // on failure: slower, but right
}

// Keeps the memory of tensors in the process: given back and faulted in anew at every update, it
// costs more than the update's element-wise work.
void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // glibc's maximum
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  troupe::StartAgainWithOneBlasThread(argv);
  troupe::KeepFreedMemory();
  return troupe::RunProgram(
      {"troupe-learner",
       "Samples windows from the replay shards, trains the policy and publishes snapshots of it."},
      argc, argv, troupe::Run);
}
