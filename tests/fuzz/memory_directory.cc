// Stands in for the rest of replay_server/mapped_file.cc and for replay_server/new_directory.cc,
// beside memory_file.cc: nothing is locked, and no new directory is made.
#include <utility>

#include "replay_server/new_directory.h"

namespace troupe {

absl::StatusOr<DirectoryLock> DirectoryLock::Acquire(const std::string& directory, bool synced) {
  return DirectoryLock(-1);
}
DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept = default;
DirectoryLock& DirectoryLock::operator=(DirectoryLock&& other) noexcept = default;
DirectoryLock::~DirectoryLock() { fd_ = -1; }

NewDirectory::NewDirectory(std::string path, std::string unfinished, DirectoryLock lock)
    : path_(std::move(path)), unfinished_(std::move(unfinished)), lock_(std::move(lock)) {}
NewDirectory::~NewDirectory() = default;

absl::StatusOr<NewDirectory> NewDirectory::Make(const std::string& path) {
  return NewDirectory(path, path, DirectoryLock::Acquire(path).value());
}
absl::Status NewDirectory::Appear() { return absl::OkStatus(); }

}  // namespace troupe
