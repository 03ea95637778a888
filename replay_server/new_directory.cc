#include "replay_server/new_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

absl::Status SyncPath(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError("cannot open", path, errno);
  const int result = fsync(fd);
  const int error_number = errno;
  close(fd);
  return result == 0 ? absl::OkStatus() : FileError("cannot sync", path, error_number);
}

bool IsEmptyOrMissing(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return !error;
  return fs::is_directory(path, error) && fs::is_empty(path, error) && !error;
}

}  // namespace

NewDirectory::NewDirectory(std::string path, std::string unfinished, DirectoryLock lock)
    : path_(std::move(path)), unfinished_(std::move(unfinished)), lock_(std::move(lock)) {}

NewDirectory::~NewDirectory() {
  std::error_code error;
  if (!unfinished_.empty()) fs::remove_all(unfinished_, error);
}

absl::StatusOr<NewDirectory> NewDirectory::Make(const std::string& path) {
  if (!IsEmptyOrMissing(path)) {
    return absl::AlreadyExistsError(absl::StrCat(path, " exists and is no empty directory"));
  }
  const std::string unfinished = absl::StrCat(path, "~");
  absl::StatusOr<DirectoryLock> lock = DirectoryLock::Acquire(unfinished);
  if (!lock.ok()) return lock.status();
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(unfinished, error)) {
    if (entry.path().filename() != "LOCK") fs::remove_all(entry.path(), error);
  }
  if (error) return FileError("cannot empty", unfinished, error.value());
  return NewDirectory(path, unfinished, *std::move(lock));
}

absl::Status NewDirectory::Appear() {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(unfinished_, error)) {
    if (absl::Status status = SyncPath(entry.path().string()); !status.ok()) return status;
  }
  if (error) return FileError("cannot list", unfinished_, error.value());
  if (absl::Status status = SyncPath(unfinished_); !status.ok()) return status;
  if (rename(unfinished_.c_str(), path_.c_str()) != 0) {
    return FileError("cannot rename to", path_, errno);
  }
  unfinished_.clear();
  return SyncPath(fs::absolute(path_).parent_path().string());
}

}  // namespace troupe
