#include "replay_server/shard_id.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

uint64_t RandomId() {
  std::random_device device;
  const uint64_t id = uint64_t{device()} << 32 | device();
  return id == 0 ? 1 : id;
}

// Wholly or not at all, also across the loss of power.
absl::Status Write(const std::string& path, const std::string& text) {
  const std::string part = path + "~";
  const int fd = open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", part));
  const bool written =
      write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(fd) == 0;
  const int error = errno;
  close(fd);
  if (!written) return absl::ErrnoToStatus(error, absl::StrCat("cannot write ", part));
  if (rename(part.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot rename ", part));
}

void SyncDirectory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

}  // namespace

absl::StatusOr<uint64_t> ReadOrMakeShardId(const std::string& data_dir) {
  const std::string path = absl::StrCat(data_dir, "/shard_id");
  std::string text;
  uint64_t id = 0;
  if (std::ifstream(path) >> text && absl::SimpleHexAtoi(text, &id) && id != 0) return id;
  id = RandomId();
  if (absl::Status status = Write(path, absl::StrCat(absl::Hex(id), "\n")); !status.ok()) {
    return status;
  }
  SyncDirectory(data_dir);
  return id;
}

}  // namespace troupe
