// Cuts the power of a replay server with ack = DISK, again and again, and holds what it has then to
// what it has acked.
//
//   power_cut --cuts N [--seed S]
//
// faults/disk_faults.cc keeps what was synced.  At a random moment under load the server is killed
// with SIGKILL, and its files become what was synced plus a random part of the 512-byte sectors
// that were not.  It starts on that and goes on.  Prints one JSON line; exit code 1: a row was
// lost, doubled or altered.
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "replay_server/row_log.h"
#include "tests/integration/replay_server/server_process.h"
#include "tests/integration/replay_server/shard_client.h"

namespace troupe {
namespace {

constexpr uint64_t kStreams[] = {1, 2, 3};
constexpr uint64_t kSectorBytes = 512;
// Rows that are not acked yet may evict acked ones: the capacity is so much more that the newest
// rows of each stream stay.
constexpr uint64_t kMaxUnackedRows = 2000;
constexpr uint64_t kCapacityRows = 16384;
constexpr uint64_t kNeverEvicted = 1000;

[[noreturn]] void Violated(const std::string& what) {
  fprintf(stderr, "power_cut: %s\n", what.c_str());
  exit(1);
}

std::string ReadFile(const std::string& path) {
  std::stringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  return bytes.str();
}
void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}
uint64_t InodeOf(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? info.st_ino : 0;
}

// The data directory and what of it is on the disk.
class Disk final {
 public:
  Disk(std::string data, std::string images, std::mt19937_64* random)
      : data_(std::move(data)), images_(std::move(images)), random_(*random) {
    std::filesystem::create_directory(data_);
    std::filesystem::create_directory(images_);
  }

  // REQUIRES: the server is dead.
  void CutPower() {
    std::map<std::string, std::string> left;
    std::istringstream names(ReadFile(images_ + "/names"));
    std::map<std::string, uint64_t> synced_names;
    for (std::pair<uint64_t, std::string> name; names >> name.first >> name.second;) {
      synced_names[name.second] = name.first;
    }
    for (const auto& entry : std::filesystem::directory_iterator(data_)) {
      const std::string name = entry.path().filename();
      if (name == "LOCK") continue;
      // A file made or renamed since the directory was synced: its old self, or it, or nothing.
      const bool is_synced =
          synced_names.contains(name) && synced_names[name] == InodeOf(entry.path());
      if (is_synced || random_() % 2 == 0) left[name] = Torn(entry.path());
    }
    for (const auto& [name, inode] : synced_names) {
      if (name == "LOCK" || left.contains(name)) continue;
      left[name] = ReadFile(images_ + "/" + std::to_string(inode));
    }
    Become(left);
  }

 private:
  std::string Torn(const std::string& path) {
    const std::string memory = ReadFile(path);
    std::string disk = ReadFile(images_ + "/" + std::to_string(InodeOf(path)));
    disk.resize(memory.size());
    const uint64_t percent = random_() % 101;
    for (size_t sector = 0; sector < memory.size(); sector += kSectorBytes) {
      if (random_() % 100 >= percent) continue;
      disk.replace(sector, kSectorBytes, memory, sector, kSectorBytes);
    }
    return disk;
  }

  // All that is there now is on the disk.
  void Become(const std::map<std::string, std::string>& files) {
    for (const std::string& folder : {data_, images_}) {
      std::filesystem::remove_all(folder);
      std::filesystem::create_directory(folder);
    }
    std::string names;
    for (const auto& [name, bytes] : files) {
      const std::string path = data_ + "/" + name;
      WriteFile(path, bytes);
      WriteFile(images_ + "/" + std::to_string(InodeOf(path)), bytes);
      names += std::to_string(InodeOf(path)) + " " + name + "\n";
    }
    WriteFile(images_ + "/names", names);
  }

  const std::string data_;
  const std::string images_;
  std::mt19937_64& random_;
};

// What the server has acked, over all its lives.
class Ledger final {
 public:
  // Appends and publishes until the server dies, which is killed after some more acks.
  void AppendUntilKilled(ServerProcess* server, std::mt19937_64* random) {
    TestWriter writer(server->port());
    if (!writer.Open({kStreams, kStreams + std::size(kStreams)})) Violated("no reply to open");
    std::map<uint64_t, uint64_t> next;
    for (const uint64_t stream : kStreams) {
      next[stream] = writer.held(stream);
      if (next[stream] < acked_[stream]) {
        Violated("stream " + std::to_string(stream) + " was acked " +
                 std::to_string(acked_[stream]) + " rows, and holds " +
                 std::to_string(next[stream]));
      }
    }
    std::atomic<uint64_t> acked_rows{Acked()};
    std::atomic<bool> is_dead{false};
    std::thread sender([&, next, sent = Acked(), seed = (*random)()]() mutable {
      std::mt19937_64 random(seed);
      while (!is_dead) {
        if (sent > acked_rows + kMaxUnackedRows) {
          std::this_thread::yield();
          continue;
        }
        const uint64_t stream = kStreams[random() % std::size(kStreams)];
        const uint64_t count = 1 + random() % (random() % 2 == 0 ? 4 : 100);
        if (!writer.WriteRows(stream, next[stream], count)) return;
        next[stream] += count;
        sent += count;
      }
    });
    uint64_t replies_left = (*random)() % 30;
    std::thread killer;
    while (writer.Read()) {
      for (const uint64_t stream : kStreams) acked_[stream] = writer.held(stream);
      acked_rows = Acked();
      if (replies_left-- == 0) {
        // Not just after a reply, but at any moment of the next sync.
        const auto delay = std::chrono::microseconds((*random)() % 3000);
        killer = std::thread([server, delay] {
          std::this_thread::sleep_for(delay);
          server->Stop(SIGKILL);
        });
      }
    }
    is_dead = true;
    sender.join();
    killer.join();
  }

  // The acked rows that were not evicted, once and unaltered.  Counts rows_checked().
  void Check(const std::string& path) {
    absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Recover(path);
    if (absl::IsNotFound(log.status()) && Acked() == 0) return;
    if (!log.ok()) Violated(log.status().ToString());
    std::map<uint64_t, std::set<uint64_t>> found;
    for (const uint32_t block : (*log)->BlocksByAge()) {
      const uint32_t first_slot = (*log)->first_row(block) % kRowsPerBlock;
      for (uint32_t i = 0; i < (*log)->row_count(block); ++i) {
        const uint64_t number = (*log)->first_row(block) + i;
        const std::string row = Rows((*log)->stream(block), number, 1);
        if (memcmp((*log)->row(block, first_slot + i), row.data(), row.size()) != 0) {
          Violated("row " + std::to_string(number) + " is altered");
        }
        if (!found[(*log)->stream(block)].insert(number).second) {
          Violated("row " + std::to_string(number) + " is there twice");
        }
      }
    }
    for (const uint64_t stream : kStreams) CheckStream(found[stream], stream);
  }
  uint64_t Acked() { return acked_[1] + acked_[2] + acked_[3]; }
  uint64_t rows_checked() const { return rows_checked_; }

 private:
  // The newest acked rows, so many that none of them can have been evicted.
  void CheckStream(const std::set<uint64_t>& rows, uint64_t stream) {
    const uint64_t acked = acked_[stream];
    for (uint64_t row = acked - std::min(acked, kNeverEvicted); row < acked; ++row) {
      ++rows_checked_;
      if (rows.contains(row)) continue;
      Violated("row " + std::to_string(row) + " of stream " + std::to_string(stream) +
               " is lost; acked were " + std::to_string(acked) + ", found are " +
               std::to_string(*rows.begin()) + " to " + std::to_string(*rows.rbegin()) + ", " +
               std::to_string(rows.size()) + " rows");
    }
  }

  std::map<uint64_t, uint64_t> acked_;
  uint64_t rows_checked_ = 0;
};

int Run(int cuts, uint64_t seed) {
  TempDir dir;
  std::mt19937_64 random(seed);
  Disk disk(dir.File("data"), dir.File("images"), &random);
  Ledger ledger;
  for (int cut = 0; cut < cuts; ++cut) {
    {
      ServerProcess server({.data_dir = dir.File("data"),
                            .capacity_rows = kCapacityRows,
                            .flags = {"--set=replay_server.ack=DISK"},
                            .environment = {"LD_PRELOAD=" TROUPE_DISK_FAULTS,
                                            "TROUPE_FAULTS_DIR=" + dir.File("data"),
                                            "TROUPE_FAULTS_IMAGE=" + dir.File("images")},
                            .log_file = dir.File("server.log")});
      if (server.port() == 0) Violated("the server did not start after cut " + std::to_string(cut));
      ledger.AppendUntilKilled(&server, &random);
    }
    disk.CutPower();
    // Checked on a copy, as recovery writes.
    std::error_code error;
    std::filesystem::copy_file(dir.File("data/replay.rows"), dir.File("copy"),
                               std::filesystem::copy_options::overwrite_existing, error);
    ledger.Check(dir.File("copy"));
  }
  printf("{\"cuts\": %d, \"rows_acked\": %lu, \"rows_checked\": %lu, \"violations\": 0}\n", cuts,
         ledger.Acked(), ledger.rows_checked());
  return 0;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  int cuts = 20;
  uint64_t seed = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::string(argv[i]) == "--cuts") cuts = atoi(argv[i + 1]);
    if (std::string(argv[i]) == "--seed") seed = atoll(argv[i + 1]);
  }
  return troupe::Run(cuts, seed);
}
