// troupe-replay-server: one shard.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/config.h"
#include "common/program.h"
#include "replay_server/backup.h"
#include "replay_server/mapped_file.h"
#include "replay_server/server.h"
#include "replay_server/shard_metrics.h"

ABSL_FLAG(
    std::string, listen, "",
    "host:port to listen on, port 0: any free one; not set: the shard's address in the config");
ABSL_FLAG(std::string, data_dir, "", "directory that holds the rows and the newest snapshot");
ABSL_FLAG(int, shard_index, 0, "which of the config's shards this is");
ABSL_FLAG(std::string, port_file, "", "file to write the port to once the shard serves");
ABSL_FLAG(
    std::string, backup, "",
    "name: ask the shard at --listen to copy what it holds into replay_server.backup_dir/name");

namespace troupe {
namespace {

absl::StatusOr<std::string> ListenAddress(const proto::Config& config) {
  if (const std::string address = absl::GetFlag(FLAGS_listen); !address.empty()) return address;
  const int index = absl::GetFlag(FLAGS_shard_index);
  if (index >= 0 && index < config.shards_size()) return config.shards(index);
  return absl::InvalidArgumentError(absl::StrCat("--listen is not set, and the config lists ",
                                                 config.shards_size(), " shards, so none of index ",
                                                 index));
}

absl::StatusOr<TableOptions> MakeTableOptions(const proto::Config& config,
                                              const std::string& name) {
  absl::StatusOr<proto::Table> table = EffectiveTable(config, name);
  if (!table.ok()) return table.status();
  TableOptions options;
  options.name = name;
  options.capacity_rows = table->capacity_rows();
  options.window.length = table->window().length();
  options.window.stride = table->window().stride();
  options.window.start_at_final_rows = table->window().start_at_final_rows();
  options.selector = table->selector();
  options.max_times_sampled = static_cast<uint8_t>(table->max_times_sampled());
  options.priority_exponent = table->priority_exponent();
  options.never_evict = table->never_evict();
  options.rate_limit.min_size = table->rate_limiter().min_size();
  options.rate_limit.samples_per_insert = table->rate_limiter().samples_per_insert();
  options.rate_limit.slack = table->rate_limiter().slack();
  options.rate_limit.queue_length = table->rate_limiter().queue_length();
  options.num_shards = std::max(1, config.shards_size());
  return options;
}

absl::StatusOr<ShardOptions> MakeShardOptions(const proto::Config& config) {
  ShardOptions options;
  options.data_dir = absl::GetFlag(FLAGS_data_dir);
  if (options.data_dir.empty()) return absl::InvalidArgumentError("--data_dir is not set");
  options.backup_dir = config.replay_server().backup_dir();
  options.max_message_bytes = config.replay_server().max_message_bytes();
  options.max_snapshot_bytes = config.replay_server().max_snapshot_bytes();
  options.max_streams = config.replay_server().max_streams();
  options.max_connections = config.replay_server().max_connections();
  options.append_window_bytes = config.replay_server().append_window_bytes();
  options.message_budget_bytes = config.replay_server().message_budget_bytes();
  options.ack_disk = config.replay_server().ack() == proto::DISK;
  for (const proto::Table& table : config.tables()) {
    absl::StatusOr<TableOptions> table_options = MakeTableOptions(config, table.name());
    if (!table_options.ok()) return table_options.status();
    options.tables.push_back(*table_options);
  }
  return options;
}

// Nothing that was not acked may be acked after this, and destructors may wait for the disk.
[[noreturn]] void EndFailed(const absl::Status& status) {
  spdlog::critical("THE DISK FAILED, and what it was given may be lost: {}", status.ToString());
  spdlog::shutdown();
  std::_Exit(kExitFailure);
}

absl::Status BackUp(const std::string& address, const std::string& name,
                    const Credentials& credentials) {
  const absl::StatusOr<proto::BackupReply> reply = RequestBackup(address, name, credentials);
  if (!reply.ok()) return reply.status();
  std::cout << reply->directory() << ": " << reply->rows() << " rows, " << reply->size_bytes()
            << " bytes; " << reply->rows_evicted() << " rows were evicted meanwhile\n";
  return absl::OkStatus();
}

absl::Status AskHealth(Program& program) {
  const absl::StatusOr<std::string> address = ListenAddress(program.config);
  if (!address.ok()) return address.status();
  return CheckHealth(*address, absl::Seconds(5), *program.credentials);
}

absl::Status Run(Program& program) {
  absl::StatusOr<std::string> address = ListenAddress(program.config);
  if (!address.ok()) return address.status();
  if (const std::string name = absl::GetFlag(FLAGS_backup); !name.empty()) {
    return BackUp(*address, name, *program.credentials);
  }
  absl::StatusOr<ShardOptions> options = MakeShardOptions(program.config);
  if (!options.ok()) return options.status();
  ExitOnBusErrors();
  const ShardObservers observers(&program.metrics);
  observers.Watch(&*options);
  options->disk_sync.fail = EndFailed;
  absl::StatusOr<std::unique_ptr<Server>> server =
      Server::Start(*address, *options, *program.credentials);
  if (!server.ok()) {
    // What is wrong with the disk or the port is no fault of usage.
    return absl::IsInvalidArgument(server.status())
               ? absl::FailedPreconditionError(server.status().message())
               : server.status();
  }
  AddShardMetrics(&(*server)->shard(), &program.metrics);
  AddConnectionMetrics(server->get(), &program.metrics);
  const absl::Cleanup stop_metrics = [&program] { program.metrics.StopServing(); };
  spdlog::info("serving {} on port {}", options->data_dir, (*server)->port());
  if (const std::string port_file = absl::GetFlag(FLAGS_port_file); !port_file.empty()) {
    const std::string text = absl::StrCat((*server)->port(), "\n");
    if (absl::Status status = WriteFileAtomically(port_file, text); !status.ok()) return status;
  }
  program.stop.Wait();
  spdlog::info("draining");
  (*server)->Stop(absl::Milliseconds(program.config.replay_server().drain_ms()));
  return absl::OkStatus();
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  return troupe::RunProgram({"troupe-replay-server",
                             "Holds one shard of the replay: takes rows from actors, gives windows "
                             "to the learner and relays its snapshots. --health asks the shard at "
                             "--listen.",
                             troupe::AskHealth},
                            argc, argv, troupe::Run);
}
