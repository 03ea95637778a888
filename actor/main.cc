// troupe-actor: steps environments with the newest policy and sends rows to the replay shards; with
// --evaluate it plays whole episodes with the policy's mode instead; with --probe it steps one
// environment through a file of actions.
#include <algorithm>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/declare.h"
#include "absl/flags/flag.h"
#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "actor/env.h"
#include "actor/probe.h"
#include "actor/row_packer.h"
#include "actor/run_actor.h"
#include "actor/run_evaluator.h"
#include "common/config.h"
#include "common/find_shards.h"
#include "common/frame_stack.h"
#include "common/program.h"
#include "common/recurrence.h"

ABSL_FLAG(
    int64_t, actor_index, 0,
    "Number of this actor; chooses the shard it starts with.  -1: a random one, for actors that "
    "nobody numbers.");
ABSL_FLAG(bool, evaluate, false, "Play deterministic episodes and report returns; send no rows.");
ABSL_FLAG(bool, once, false,
          "With --evaluate: evaluate the newest policy of the shards once, print and exit.");
ABSL_FLAG(std::string, checkpoint, "",
          "With --evaluate --once: evaluate the policy of this checkpoint, or of the newest one in "
          "this folder, instead; no shard is needed.");
ABSL_FLAG(std::string, output_dir, "",
          "Folder for evaluations.jsonl and TensorBoard files (--evaluate; default '.'), or for "
          "actor-<index>.json, the counts at exit.");
ABSL_FLAG(std::string, ledger, "",
          "File to append to, as JSON lines, how many rows of each stream the shards have acked; "
          "one file an incarnation.  With / at its end: the folder for a file of a random name.");
ABSL_FLAG(std::string, probe, "",
          "Step the configured environment through this file of actions, one a line, print JSON "
          "lines and exit.");
ABSL_FLAG(std::string, probe_state, "",
          "With --probe: start from this state (numbers separated by commas: qpos then qvel, or "
          "the classic state vector) instead of from the seed of the configuration.");
ABSL_FLAG(bool, probe_continue, false,
          "With --probe: when an episode ends, go on with the next seed instead of stopping.");
ABSL_FLAG(
    bool, print_row_log_bytes, false,
    "Print how many bytes each shard allocates at once for the rows of this configuration, within "
    "a few per cent, and exit.  Compressed columns come on top as they come.");

namespace troupe {
namespace {

// What a shard stores beside a row: how often it was sampled, and its part of a block's header.
constexpr int64_t kRowOverheadBytes = 4;

int64_t ActorIndex() {
  static const int64_t index = [] {
    const int64_t given = absl::GetFlag(FLAGS_actor_index);
    return given >= 0 ? given : int64_t{std::random_device()() % 1000000};
  }();
  return index;
}

std::string LedgerPath() {
  const std::string path = absl::GetFlag(FLAGS_ledger);
  if (!absl::EndsWith(path, "/")) return path;
  std::random_device device;
  return absl::StrCat(path, absl::Hex(device()), absl::Hex(device()), ".jsonl");
}

using Directory = std::shared_ptr<ShardDirectory>;

SnapshotClientOptions SnapshotOptions(const Program& program, const Directory& directory) {
  const proto::Config& config = program.config;
  return {.directory = directory,
          .credentials = program.credentials,
          .run = config.run(),
          .max_snapshot_bytes = config.replay_server().max_snapshot_bytes(),
          .reconnect_min = absl::Milliseconds(config.actor().reconnect_min_ms()),
          .reconnect_max = absl::Milliseconds(config.actor().reconnect_max_ms())};
}

// What the slack of the rate limiter is worth, twice; at least two steps of every environment.
int64_t MaxRowsAhead(const proto::Config& config, const proto::Table& table) {
  const proto::RateLimiter& limiter = table.rate_limiter();
  if (limiter.samples_per_insert() == 0) return std::numeric_limits<int64_t>::max();
  const double rows = std::min(limiter.slack() / limiter.samples_per_insert(), 1e9);
  return 2 * std::max<int64_t>(config.actor().num_envs(), static_cast<int64_t>(rows));
}

// Rows of another table than the learner's, such as demonstrations, are cut alike.
bool IsOnPolicy(const proto::Config& config) { return config.learner().has_ppo(); }

int64_t MemorySize(const proto::Config& config) {
  return StateSize(PolicyRecurrence(config.learner()));
}

UnrollRule Unroll(const proto::Config& config) {
  if (!IsOnPolicy(config)) return {};
  const proto::Ppo& ppo = config.learner().ppo();
  return {.length = ppo.unroll_length(),
          .synchronous = ppo.max_policy_lag() == 0,
          .lead_rows = LeadRows(ppo)};
}

RowWriterOptions WriterOptions(const Program& program, const Directory& directory) {
  const proto::Config& config = program.config;
  const proto::Actor& actor = config.actor();
  return {.directory = directory,
          .first_shard = ActorIndex(),
          .credentials = program.credentials,
          .run = config.run(),
          .table = actor.table(),
          .num_envs = actor.num_envs(),
          .max_unacked_bytes = actor.max_unacked_bytes(),
          .message_bytes = actor.message_bytes(),
          .max_delay = absl::Milliseconds(actor.max_delay_ms()),
          .reconnect_min = absl::Milliseconds(actor.reconnect_min_ms()),
          .reconnect_max = absl::Milliseconds(actor.reconnect_max_ms()),
          .move_after = absl::Milliseconds(actor.move_after_ms()),
          .compression = {actor.compression().begin(), actor.compression().end()}};
}

// No two incarnations get the same seed, or a restarted actor would repeat its episodes.
uint64_t IncarnationSeed(const proto::Config& config) {
  std::random_device device;
  const uint64_t incarnation = uint64_t{device()} << 32 | device();
  return absl::HashOf(config.seed(), ActorIndex(), incarnation);
}

absl::StatusOr<std::vector<double>> ParseState(const std::string& text) {
  std::vector<double> state;
  for (absl::string_view word : absl::StrSplit(text, ',')) {
    double value = 0;
    if (!absl::SimpleAtod(word, &value)) {
      return absl::InvalidArgumentError(absl::StrCat("--probe_state: '", word, "' is no number"));
    }
    state.push_back(value);
  }
  return state;
}

absl::Status Probe(const proto::Config& config) {
  ProbeOptions options{.environment = config.environment(),
                       .asset_dir = DefaultAssetDir(),
                       .actions_path = absl::GetFlag(FLAGS_probe),
                       .seed = config.seed(),
                       .continue_after_end = absl::GetFlag(FLAGS_probe_continue),
                       .output = &std::cout};
  if (const std::string text = absl::GetFlag(FLAGS_probe_state); !text.empty()) {
    absl::StatusOr<std::vector<double>> state = ParseState(text);
    if (!state.ok()) return state.status();
    options.state = *std::move(state);
  }
  return RunProbe(options);
}

absl::Status PrintRowLogBytes(const proto::Config& config) {
  absl::StatusOr<proto::Table> table = EffectiveTable(config, config.actor().table());
  if (!table.ok()) return table.status();
  absl::StatusOr<std::unique_ptr<Env>> env = MakeEnv(config.environment(), DefaultAssetDir());
  if (!env.ok()) return env.status();
  absl::StatusOr<Layout> layout =
      Layout::FromProto(MakeLayout((*env)->spec(), IsOnPolicy(config), MemorySize(config)));
  if (!layout.ok()) return layout.status();
  int64_t row_bytes = layout->stride_bytes() + kRowOverheadBytes;
  for (const proto::ColumnCompression& compression : config.actor().compression()) {
    const absl::StatusOr<ColumnLayout> column = layout->Find(compression.column());
    if (column.ok()) row_bytes -= column->size_bytes;  // allocated as rows come
  }
  std::cout << table->capacity_rows() * row_bytes << "\n";
  return absl::OkStatus();
}

absl::Status Act(Program& program, const Directory& directory) {
  const proto::Config& config = program.config;
  absl::StatusOr<proto::Table> table = EffectiveTable(config, config.actor().table());
  if (!table.ok()) return table.status();
  return RunActor({.environment = config.environment(),
                   .asset_dir = DefaultAssetDir(),
                   .num_threads = config.actor().num_threads(),
                   .actor_index = ActorIndex(),
                   .seed = IncarnationSeed(config),
                   .output_dir = absl::GetFlag(FLAGS_output_dir),
                   .ledger = LedgerPath(),
                   .max_rows_ahead = MaxRowsAhead(config, *table),
                   .with_log_prob = IsOnPolicy(config),
                   .state_size = MemorySize(config),
                   .unroll = Unroll(config),
                   .writer = WriterOptions(program, directory),
                   .snapshots = SnapshotOptions(program, directory)},
                  program.stop, program.metrics);
}

absl::Status Evaluate(Program& program, const Directory& directory) {
  const proto::Config& config = program.config;
  const std::string output_dir = absl::GetFlag(FLAGS_output_dir);
  const EvaluatorOptions options{.environment = config.environment(),
                                 .asset_dir = DefaultAssetDir(),
                                 .evaluator = config.evaluator(),
                                 .seed = config.seed(),
                                 .output_dir = output_dir.empty() ? "." : output_dir,
                                 .snapshots = SnapshotOptions(program, directory)};
  if (!absl::GetFlag(FLAGS_once)) return RunEvaluator(options, program.stop, program.metrics);
  return EvaluateOnce(options, {.checkpoint = absl::GetFlag(FLAGS_checkpoint)}, program.stop,
                      std::cout);
}

absl::Status Run(Program& program) {
  if (!absl::GetFlag(FLAGS_probe).empty()) return Probe(program.config);
  if (absl::GetFlag(FLAGS_print_row_log_bytes)) return PrintRowLogBytes(program.config);
  if (!absl::GetFlag(FLAGS_checkpoint).empty()) {
    if (absl::GetFlag(FLAGS_evaluate) && absl::GetFlag(FLAGS_once)) {
      return Evaluate(program, nullptr);
    }
    return absl::InvalidArgumentError("--checkpoint goes with --evaluate --once");
  }
  if (program.config.shards_size() == 0) {
    return absl::InvalidArgumentError(
        "no shards: set `shards` in the configuration, or --set shards=host:port,host:port");
  }
  const absl::StatusOr<Directory> directory = FindShards(program);
  if (absl::IsCancelled(directory.status())) return absl::OkStatus();
  if (!directory.ok()) return directory.status();
  return absl::GetFlag(FLAGS_evaluate) ? Evaluate(program, *directory) : Act(program, *directory);
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  return troupe::RunProgram(
      {"troupe-actor",
       "Steps environments with the newest policy and sends every step to a replay shard. With "
       "--evaluate: plays whole episodes with the policy's mode. With --probe: steps one "
       "environment through a file of actions."},
      argc, argv, troupe::Run);
}
