#include "actor/run_actor.h"

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "actor/ledger.h"
#include "actor/policy_feed.h"
#include "actor/rollout.h"
#include "actor/row_packer.h"
#include "actor/vector_env.h"
#include "common/row_codec.h"
#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"

namespace troupe {
namespace {

// How long an actor that was told to stop tries to get its rows acked.
constexpr absl::Duration kFlushTime = absl::Seconds(3);

void AddWriterMetrics(const RowWriter& writer, Metrics& metrics) {
  const auto counter = [&](const char* name, const char* help, int64_t RowWriterStats::*field) {
    metrics.AddSampledCounter(
        name, help, [&writer, field] { return static_cast<double>(writer.stats().*field); });
  };
  counter("troupe_actor_rows_appended_total", "Rows packed.", &RowWriterStats::rows_appended);
  counter("troupe_actor_rows_acked_total", "Rows that a shard holds, as it said.",
          &RowWriterStats::rows_acked);
  counter("troupe_actor_rows_dropped_total", "Rows given up; none of them was acked.",
          &RowWriterStats::rows_dropped);
  counter("troupe_actor_reconnects_total", "Connections that broke or failed.",
          &RowWriterStats::reconnects);
  counter("troupe_actor_moves_total", "Moves to another shard.", &RowWriterStats::moves);
  metrics.AddSampledGauge("troupe_actor_unacked_bytes", "Bytes of rows packed but not acked.",
                          [&writer] { return static_cast<double>(writer.stats().unacked_bytes); });
  metrics.AddSampledCounter("troupe_actor_blocked_seconds_total",
                            "Time that environments waited for room in the buffer.",
                            [&writer] { return absl::ToDoubleSeconds(writer.stats().blocked); });
}

void AddFaultMetrics(const VectorEnv& envs, Metrics& metrics) {
  const auto counter = [&](const char* name, const char* help, int64_t VectorEnv::Faults::*field) {
    metrics.AddSampledCounter(name, help,
                              [&envs, field] { return static_cast<double>(envs.faults().*field); });
  };
  counter("troupe_actor_env_crashes_total",
          "Processes of environments that raised an exception or ended, and were replaced.",
          &VectorEnv::Faults::crashes);
  counter("troupe_actor_env_timeouts_total",
          "Processes of environments that took too long, and were replaced.",
          &VectorEnv::Faults::timeouts);
  counter("troupe_actor_env_invalid_total",
          "Processes of environments that gave numbers that are not finite, and were replaced.",
          &VectorEnv::Faults::invalid);
}

absl::Status WriteStats(const ActorOptions& options, const Rollout& rollout,
                        const RowWriterStats& stats) {
  if (options.output_dir.empty()) return absl::OkStatus();
  const nlohmann::ordered_json json = {{"env_steps", rollout.env_steps()},
                                       {"episodes", rollout.episodes()},
                                       {"rows_appended", stats.rows_appended},
                                       {"rows_acked", stats.rows_acked},
                                       {"rows_dropped", stats.rows_dropped},
                                       {"reconnects", stats.reconnects},
                                       {"moves", stats.moves}};
  return WriteFileAtomically(
      absl::StrCat(options.output_dir, "/actor-", options.actor_index, ".json"),
      json.dump() + "\n");
}

// Waits for a shard, saying so now and then, because an actor without one has nothing to do.
absl::Status Connect(RowWriter& writer, const StopToken& stop) {
  absl::Time next_word = absl::Now() + absl::Seconds(5);
  while (!stop.requested()) {
    absl::Status connected = writer.WaitConnected(absl::Now() + absl::Milliseconds(200));
    if (!absl::IsDeadlineExceeded(connected)) return connected;
    if (absl::Now() < next_word) continue;
    spdlog::warn("waiting for a shard: {}", std::string(connected.message()));
    next_word = absl::Now() + absl::Seconds(5);
  }
  return absl::CancelledError("stopped while waiting for a shard");
}

// Rows that the shards do not take any more are given up after kFlushTime, or at once if the run is
// over and nobody wants them; none was acked.
absl::Status RunUntilStopped(Rollout& rollout, RowWriter& writer, PolicyFeed& feed,
                             StopToken& stop) {
  absl::Notification done;
  std::thread ender([&] {
    stop.Wait();
    rollout.RequestStop();
    feed.Stop();
    const absl::Duration patience = feed.run_is_over() ? absl::ZeroDuration() : kFlushTime;
    if (!done.WaitForNotificationWithTimeout(patience)) writer.Stop();
  });
  absl::Status ran = rollout.Run();
  stop.Request();
  const absl::Status flushed = writer.Flush(absl::Now() + kFlushTime);
  if (!flushed.ok() && !feed.run_is_over())
    spdlog::warn("not acked at the end: {}", std::string(flushed.message()));
  done.Notify();
  ender.join();
  return ran.ok() ? feed.status() : ran;
}

absl::Status Act(const ActorOptions& options, VectorEnv& envs, const Layout& layout,
                 RowWriter& writer, StopToken& stop, Metrics& metrics) {
  absl::StatusOr<RowPacker> packer = RowPacker::Create(layout);
  if (!packer.ok()) return packer.status();
  if (absl::Status connected = Connect(writer, stop); !connected.ok()) return connected;
  spdlog::info("{} environments of {} write to shard {}", envs.num_envs(), envs.spec().id,
               writer.shard_name());
  auto subscriber =
      SnapshotSubscriber::Create(options.snapshots, static_cast<int>(options.actor_index));
  if (!subscriber.ok()) return subscriber.status();
  RolloutMetrics rollout_metrics(metrics);
  PolicyFeed feed(**subscriber, envs.spec(), [&stop] { stop.Request(); });
  Rollout rollout(envs, *packer, writer, feed, rollout_metrics, options.seed, options.unroll);
  absl::Status ran = RunUntilStopped(rollout, writer, feed, stop);
  const absl::Status written = WriteStats(options, rollout, writer.stats());
  return ran.ok() ? written : ran;
}

RowWriterOptions WriterOptions(const ActorOptions& options, const Layout& layout) {
  RowWriterOptions writer = options.writer;
  if (layout.has_compressed_columns()) writer.max_unacked_rows = options.max_rows_ahead;
  const int64_t rows = writer.max_unacked_bytes / layout.stride_bytes();
  if (options.max_rows_ahead >= rows) return writer;
  writer.max_unacked_bytes = options.max_rows_ahead * layout.stride_bytes();
  writer.message_bytes = std::min(writer.message_bytes, writer.max_unacked_bytes / 2);
  return writer;
}

// Columns smaller than this are not worth it. Unit: bytes.
constexpr int64_t kLeastCompressedBytes = 64;

absl::StatusOr<Layout> RowLayout(const ActorOptions& options, const EnvSpec& spec) {
  proto::Layout proto = MakeLayout(spec, options.with_log_prob, options.state_size);
  absl::Status status = SetCompression(options.writer.compression, &proto);
  if (!status.ok()) return status;
  absl::StatusOr<Layout> layout = Layout::FromProto(proto);
  if (!layout.ok()) return layout;
  for (const ColumnLayout& column : layout->columns()) {
    if (column.compression == proto::COMPRESSION_NONE) continue;
    if (column.size_bytes >= kLeastCompressedBytes) continue;
    spdlog::warn("column '{}' of {} bytes is too small to be compressed", column.name,
                 column.size_bytes);
  }
  return layout;
}

}  // namespace

absl::Status RunActor(const ActorOptions& options, StopToken& stop, Metrics& metrics) {
  auto envs = VectorEnv::Make(options.environment, options.asset_dir, options.writer.num_envs,
                              options.num_threads, options.seed);
  if (!envs.ok()) return envs.status();
  absl::StatusOr<Layout> layout = RowLayout(options, (*envs)->spec());
  if (!layout.ok()) return layout.status();
  auto writer = RowWriter::Create(WriterOptions(options, *layout), *layout);
  if (!writer.ok()) return writer.status();
  std::unique_ptr<Ledger> ledger;
  if (!options.ledger.empty()) {
    auto opened = Ledger::Open(options.ledger, **writer);
    if (!opened.ok()) return opened.status();
    ledger = *std::move(opened);
  }
  AddWriterMetrics(**writer, metrics);
  AddFaultMetrics(**envs, metrics);
  absl::Status acted = Act(options, **envs, *layout, **writer, stop, metrics);
  metrics.StopServing();  // the sampled metrics read the writer
  if (absl::IsCancelled(acted)) acted = absl::OkStatus();
  if (ledger != nullptr) acted.Update(ledger->Close());
  return acted;
}

}  // namespace troupe
