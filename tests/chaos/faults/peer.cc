// troupe-chaos-peer: one client of a shard, with the product's own clients, that says what it has
// done as it does it.
//
//   troupe-chaos-peer --role writer --shard 127.0.0.1:7001 --ledger FILE --key 1
//
// Every 50 ms a JSON line is added to --ledger and flushed to the disk.  The last whole line holds:
//   writer      {"streams": {NAME: {"acked", "crc32c"}}, "rows_acked", ...}: what the shard acked,
//               and the CRC-32C of just those rows; on SIGTERM all is flushed first
//   sampler     {"windows", "wrong"}: every row is checked, whoever of --keys has written it
//   subscriber  {"snapshots", "version"}
//   publisher   {"published"}
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "actor/row_writer.h"
#include "common/crc32c.h"
#include "common/replay_client.h"
#include "common/snapshot_client.h"
#include "nlohmann/json.hpp"
#include "tests/chaos/shard_kill/known_rows.h"

ABSL_FLAG(std::string, role, "", "writer, sampler, subscriber or publisher");
ABSL_FLAG(std::string, shard, "", "host:port");
ABSL_FLAG(std::string, ledger, "", "file for the lines");
ABSL_FLAG(uint64_t, key, 1, "writer: what its rows follow from, with those of its streams");
ABSL_FLAG(std::vector<std::string>, keys, {}, "sampler: of all writers");
ABSL_FLAG(double, per_second, 2000,
          "rows of a writer, batches of a sampler, snapshots of a publisher; 0: none; for a writer "
          "below 0: as many as go");
ABSL_FLAG(int64_t, snapshot_bytes, 200'000, "publisher");

namespace troupe {
namespace {

using Json = nlohmann::json;

constexpr char kRun[] = "chaos";
constexpr char kTable[] = "replay";
constexpr uint64_t kSeed = 1;
constexpr int64_t kStreams = 2;  // of a writer
constexpr int64_t kBatch = 64;   // windows
constexpr absl::Duration kInterval = absl::Milliseconds(50);
constexpr absl::Duration kTick = absl::Milliseconds(2);
constexpr absl::Duration kPatience = absl::Seconds(100);

std::atomic<bool> stop_requested{false};  // set by a signal handler

[[noreturn]] void Fail(const absl::Status& status) {
  std::cerr << "troupe-chaos-peer: " << absl::GetFlag(FLAGS_role) << ": " << status.ToString()
            << std::endl;
  _exit(1);
}

void Record(const Json& line) {
  static const int fd =
      open(absl::GetFlag(FLAGS_ledger).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const std::string text = line.dump() + "\n";
  if (write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      fdatasync(fd) != 0) {
    Fail(absl::ErrnoToStatus(errno, "cannot write the ledger"));
  }
}

// What is due at an even pace.  Time that was lost is not made up for.
class Pace final {
 public:
  explicit Pace(double per_second) : per_second_(per_second) {}

  int64_t Due() {
    const absl::Time now = absl::Now();
    due_ += per_second_ * absl::ToDoubleSeconds(std::min(now - last_, absl::Seconds(0.1)));
    last_ = now;
    const auto whole = static_cast<int64_t>(due_);
    due_ -= static_cast<double>(whole);
    return whole;
  }

 private:
  const double per_second_;
  absl::Time last_ = absl::Now();
  double due_ = 0;
};

// Calls `describe` again and again until it is destroyed, and then once more.
class Reporter final {
 public:
  explicit Reporter(std::function<Json()> describe)
      : describe_(std::move(describe)), thread_([this] { Run(); }) {}
  ~Reporter() {
    over_ = true;
    thread_.join();
  }

 private:
  void Run() {
    while (!over_) {
      Record(describe_());
      absl::SleepFor(kInterval);
    }
    Record(describe_());
  }

  const std::function<Json()> describe_;
  std::atomic<bool> over_{false};
  std::thread thread_;
};

uint64_t StreamKey(uint64_t key, int64_t env) { return key * 1000 + static_cast<uint64_t>(env); }

// Describes what is acked of each stream.  Used by one thread.
class AckedRows final {
 public:
  explicit AckedRows(const RowWriter* writer) : writer_(*writer) {}

  Json Describe() {
    Json streams = Json::object();
    for (const RowStream& stream : writer_.streams()) {
      Crc& crc = crcs_[stream.id];
      const auto acked = static_cast<uint64_t>(stream.acked_rows);
      const uint64_t key = StreamKey(absl::GetFlag(FLAGS_key), stream.env);
      crc.value = rows_.ExtendCrc(crc.value, key, crc.rows, acked);
      crc.rows = acked;
      streams[absl::StrFormat("%016x", stream.id)] = {
          {"acked", acked}, {"crc32c", absl::StrFormat("%08x", crc.value)}};
    }
    const RowWriterStats stats = writer_.stats();
    return {{"streams", streams},
            {"rows_appended", stats.rows_appended},
            {"rows_acked", stats.rows_acked},
            {"rows_dropped", stats.rows_dropped},
            {"reconnects", stats.reconnects},
            {"streams_renamed", stats.streams_renamed},
            {"unacked_bytes", stats.unacked_bytes}};
  }

 private:
  struct Crc {
    uint64_t rows = 0;
    uint32_t value = 0;
  };
  const RowWriter& writer_;
  const KnownRows rows_{kSeed};
  std::map<uint64_t, Crc> crcs_;
};

absl::Status AppendRows(RowWriter* writer) {
  const KnownRows rows(kSeed);
  const double per_second = absl::GetFlag(FLAGS_per_second);
  Pace pace(per_second);
  for (uint64_t next = 0; !stop_requested;) {
    int64_t due = per_second < 0 ? 100 : pace.Due();
    for (; due > 0; --due, ++next) {
      const auto env = static_cast<int64_t>(next % kStreams);
      const std::string row =
          rows.Pack(StreamKey(absl::GetFlag(FLAGS_key), env), next / kStreams, 1);
      const auto appended = writer->Append(env, [&row](absl::Span<char> bytes) {
        std::memcpy(bytes.data(), row.data(), bytes.size());
      });
      if (!appended.ok()) return appended.status();
    }
    if (per_second >= 0) absl::SleepFor(kTick);
  }
  return writer->Flush(absl::Now() + kPatience);
}

absl::Status Write() {
  auto layout = Layout::FromProto(KnownRows::LayoutProto());
  if (!layout.ok()) return layout.status();
  auto writer = RowWriter::Create(
      {.shards = {absl::GetFlag(FLAGS_shard)}, .run = kRun, .table = kTable, .num_envs = kStreams},
      *layout);
  if (!writer.ok()) return writer.status();
  AckedRows acked(writer->get());
  std::atomic<bool> flushed{false};
  const Reporter reporter([&] {
    Json line = acked.Describe();
    line["flushed"] = flushed.load();
    return line;
  });
  absl::Status status = AppendRows(writer->get());
  flushed = status.ok();
  return status;
}

// The rows of windows are those that somebody wrote, and follow one another.
class WindowCheck final {
 public:
  WindowCheck() {
    for (const std::string& word : absl::GetFlag(FLAGS_keys)) {
      uint64_t key = 0;
      if (!absl::SimpleAtoi(word, &key)) Fail(absl::InvalidArgumentError("--keys"));
      for (int64_t env = 0; env < kStreams; ++env) keys_.push_back(StreamKey(key, env));
    }
  }

  bool IsSound(const WindowBatch& batch, int64_t window) const {
    const std::string found(reinterpret_cast<const char*>(batch.row(window, 0)),
                            batch.window_bytes());
    uint64_t version;  // KnownRows: the row's number + 1
    std::memcpy(&version, found.data(), sizeof(version));
    for (const uint64_t key : keys_) {
      if (rows_.Pack(key, version - 1, batch.window_length) == found) return true;
    }
    return false;
  }

 private:
  const KnownRows rows_{kSeed};
  std::vector<uint64_t> keys_;
};

absl::Status Sample() {
  auto client = ReplayClient::Create({.shards = {absl::GetFlag(FLAGS_shard)},
                                      .run = kRun,
                                      .table = kTable,
                                      .batch_size = kBatch,
                                      .rate_limit = {.min_size = 1}});
  if (!client.ok()) return client.status();
  auto table = (*client)->WaitForTable(absl::Now() + kPatience);
  if (!table.ok()) return table.status();
  const WindowCheck check;
  std::atomic<int64_t> windows{0};
  std::atomic<int64_t> wrong{0};
  const Reporter reporter([&]() -> Json {
    return {{"windows", windows.load()},
            {"wrong", wrong.load()},
            {"reconnects", (*client)->stats().reconnects}};
  });
  Pace pace(absl::GetFlag(FLAGS_per_second));
  while (!stop_requested) {
    for (int64_t due = pace.Due(); due > 0 && !stop_requested; --due) {
      auto batch = (*client)->NextBatch(absl::Now() + absl::Milliseconds(100));
      if (absl::IsDeadlineExceeded(batch.status())) continue;
      if (!batch.ok()) return batch.status();
      for (int64_t i = 0; i < batch->num_windows; ++i) wrong += !check.IsSound(*batch, i);
      windows += batch->num_windows;
    }
    absl::SleepFor(kTick);
  }
  return absl::OkStatus();
}

SnapshotClientOptions SnapshotOptions() {
  return {.shards = {absl::GetFlag(FLAGS_shard)}, .run = kRun};
}

absl::Status Subscribe() {
  auto subscriber = SnapshotSubscriber::Create(SnapshotOptions(), 0);
  if (!subscriber.ok()) return subscriber.status();
  std::atomic<uint64_t> version{0};
  const Reporter reporter([&]() -> Json {
    const SnapshotSubscriber::Stats stats = (*subscriber)->stats();
    return {{"snapshots", stats.received},
            {"rejected", stats.rejected},
            {"reconnects", stats.reconnects},
            {"version", version.load()}};
  });
  while (!stop_requested) {
    auto newest = (*subscriber)->WaitNewer(version, absl::Now() + absl::Milliseconds(100));
    if (absl::IsDeadlineExceeded(newest.status())) continue;
    if (!newest.ok()) return newest.status();
    version = (*newest)->version;
  }
  return absl::OkStatus();
}

absl::Status Publish() {
  auto publisher = SnapshotPublisher::Create(SnapshotOptions());
  if (!publisher.ok()) return publisher.status();
  const Reporter reporter([&]() -> Json {
    return {{"published", (*publisher)->published()[0] & 0xffffffffff}};
  });
  const std::string image(absl::GetFlag(FLAGS_snapshot_bytes), 'x');
  Pace pace(absl::GetFlag(FLAGS_per_second));
  for (uint64_t counter = 1; !stop_requested;) {
    for (int64_t due = pace.Due(); due > 0; --due) {
      auto snapshot = std::make_shared<Snapshot>();
      snapshot->run = kRun;
      snapshot->version = uint64_t{1} << 40 | counter++;
      snapshot->crc32c = Crc32c(0, image.data(), image.size());
      snapshot->image = image;
      if (absl::Status status = (*publisher)->Publish(snapshot); !status.ok()) return status;
    }
    absl::SleepFor(kTick);
  }
  return absl::OkStatus();
}

absl::Status Run() {
  const std::string role = absl::GetFlag(FLAGS_role);
  if (role == "writer") return Write();
  if (role == "sampler") return Sample();
  if (role == "subscriber") return Subscribe();
  if (role == "publisher") return Publish();
  return absl::InvalidArgumentError("--role is writer, sampler, subscriber or publisher");
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  signal(SIGTERM, [](int) { troupe::stop_requested = true; });
  const absl::Status status = troupe::Run();
  if (!status.ok()) troupe::Fail(status);
  return 0;
}
