#include "actor/ledger.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "spdlog/spdlog.h"

namespace troupe {
namespace {

constexpr absl::Duration kInterval = absl::Milliseconds(50);

}  // namespace

absl::StatusOr<std::unique_ptr<Ledger>> Ledger::Open(const std::string& path,
                                                     const RowWriter& writer) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ledger ", path));
  return std::unique_ptr<Ledger>(new Ledger(path, fd, writer));
}

Ledger::Ledger(std::string path, int fd, const RowWriter& writer)
    : path_(std::move(path)), fd_(fd), writer_(writer), thread_([this] { Run(); }) {}

Ledger::~Ledger() {
  Close().IgnoreError();
  close(fd_);
}

absl::Status Ledger::Close() {
  if (!thread_.joinable()) return status_;
  stop_.Notify();
  thread_.join();
  return status_;
}

void Ledger::Run() {
  bool last = false;
  while (status_.ok() && !last) {
    last = stop_.WaitForNotificationWithTimeout(kInterval);
    status_ = Record();
  }
  if (!status_.ok()) spdlog::error("{}", std::string(status_.message()));
}

absl::Status Ledger::Record() {
  std::string lines;
  for (const RowStream& stream : writer_.streams()) {
    int64_t& recorded = recorded_[stream.id];
    if (stream.acked_rows <= recorded) continue;
    recorded = stream.acked_rows;
    absl::StrAppendFormat(&lines, "{\"stream\":\"%016x\",\"shard\":%d,\"acked\":%d}\n", stream.id,
                          stream.shard, stream.acked_rows);
  }
  if (lines.empty()) return absl::OkStatus();
  const ssize_t written = write(fd_, lines.data(), lines.size());
  if (written < 0 || fdatasync(fd_) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ledger ", path_));
  }
  if (static_cast<size_t>(written) < lines.size()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("wrote only ", written, " of ", lines.size(), " bytes to ledger ", path_));
  }
  return absl::OkStatus();
}

}  // namespace troupe
