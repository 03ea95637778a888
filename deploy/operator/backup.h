#ifndef TROUPE_DEPLOY_OPERATOR_BACKUP_H_
#define TROUPE_DEPLOY_OPERATOR_BACKUP_H_

#include <string>

#include "absl/status/status.h"
#include "common/program.h"

namespace troupe {

struct BackupOptions {
  std::string name;    // shard i makes NAME-i below its backup_dir; empty: the time of day
  std::string output;  // a new folder here, to move them to as shard-i; empty: they stay
};

// Has every shard copy what it holds, all at once, and prints where that lies.  The error of every
// shard that did not; FAILED_PRECONDITION also if a directory cannot be moved from here.
absl::Status RunBackup(const Program& program, const BackupOptions& options);

}  // namespace troupe

#endif  // TROUPE_DEPLOY_OPERATOR_BACKUP_H_
