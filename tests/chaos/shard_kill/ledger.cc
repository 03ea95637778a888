#include "tests/chaos/shard_kill/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"

namespace troupe {
namespace {

absl::Status WriteAndSync(int fd, const std::vector<LedgerEntry>& entries) {
  const char* data = reinterpret_cast<const char*>(entries.data());
  size_t left = entries.size() * sizeof(LedgerEntry);
  while (left > 0) {
    const ssize_t written = write(fd, data, left);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, "cannot write the ledger");
    data += written;
    left -= static_cast<size_t>(written);
  }
  if (fdatasync(fd) != 0) return absl::ErrnoToStatus(errno, "cannot sync the ledger");
  return absl::OkStatus();
}

uint32_t Check(const LedgerEntry& entry) { return Crc32c(0, &entry, offsetof(LedgerEntry, check)); }

}  // namespace

absl::StatusOr<std::unique_ptr<Ledger>> Ledger::Create(const std::string& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot make ", path));
  return std::unique_ptr<Ledger>(new Ledger(fd));
}

Ledger::Ledger(int fd) : fd_(fd), thread_([this] { SyncGroups(); }) {}

Ledger::~Ledger() {
  {
    absl::MutexLock lock(&mu_);
    closing_ = true;
  }
  thread_.join();
  close(fd_);
}

void Ledger::Record(uint64_t stream, uint64_t held_rows, uint32_t rows_crc32c, uint64_t new_rows) {
  LedgerEntry entry = {.stream = stream, .held_rows = held_rows, .rows_crc32c = rows_crc32c};
  entry.check = Check(entry);
  absl::MutexLock lock(&mu_);
  waiting_.push_back(entry);
  waiting_rows_ += new_rows;
}

absl::Status Ledger::Flush() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &Ledger::IsIdle));
  return status_;
}

uint64_t Ledger::acked_rows() const {
  absl::MutexLock lock(&mu_);
  return acked_rows_;
}

void Ledger::SyncGroups() {
  for (;;) {
    std::vector<LedgerEntry> group;
    uint64_t rows = 0;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &Ledger::HasWork));
      if (waiting_.empty()) return;
      group.swap(waiting_);
      rows = std::exchange(waiting_rows_, 0);
      syncing_ = true;
    }
    absl::Status written = WriteAndSync(fd_, group);
    absl::MutexLock lock(&mu_);
    syncing_ = false;
    status_.Update(written);
    if (status_.ok()) acked_rows_ += rows;
  }
}

absl::StatusOr<std::map<uint64_t, std::vector<LedgerEntry>>> Ledger::Read(const std::string& path) {
  std::map<uint64_t, std::vector<LedgerEntry>> streams;
  std::ifstream file(path, std::ios::binary);
  LedgerEntry entry;
  while (file.read(reinterpret_cast<char*>(&entry), sizeof(entry))) {
    if (entry.check != Check(entry)) return absl::DataLossError(absl::StrCat(path, " is damaged"));
    streams[entry.stream].push_back(entry);
  }
  if (file.gcount() != 0 || !file.eof()) {
    return absl::DataLossError(absl::StrCat(path, " cannot be read to its end"));
  }
  return streams;
}

}  // namespace troupe
