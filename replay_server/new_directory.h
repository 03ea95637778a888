#ifndef TROUPE_REPLAY_SERVER_NEW_DIRECTORY_H_
#define TROUPE_REPLAY_SERVER_NEW_DIRECTORY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replay_server/mapped_file.h"

namespace troupe {

// A directory that appears under its name with all that is in it or not at all, the loss of power
// included.  Until then it has '~' at the end of its name and is locked.  Not thread-safe.
class NewDirectory final {
 public:
  // ALREADY_EXISTS: something is at `path` that is no empty directory; FAILED_PRECONDITION: another
  // process is making the same one.  What a maker that died left is removed.
  static absl::StatusOr<NewDirectory> Make(const std::string& path);

  NewDirectory(NewDirectory&&) = default;
  NewDirectory& operator=(NewDirectory&&) = delete;
  // Removes what has not appeared.
  ~NewDirectory();

  // A path in it before Appear().
  std::string File(const std::string& name) const { return unfinished_ + "/" + name; }
  // Brings every file to the disk, and the directory under its name.
  absl::Status Appear();

 private:
  NewDirectory(std::string path, std::string unfinished, DirectoryLock lock);

  std::string path_;
  std::string unfinished_;  // empty: moved from, or it has appeared
  DirectoryLock lock_;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_NEW_DIRECTORY_H_
