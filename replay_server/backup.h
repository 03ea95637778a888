#ifndef TROUPE_REPLAY_SERVER_BACKUP_H_
#define TROUPE_REPLAY_SERVER_BACKUP_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/credentials.h"
#include "proto/replay.pb.h"
#include "replay_server/shard.h"

namespace troupe {

// Copies what `shard` holds at one moment into the new directory `name` below its backup_dir: a
// whole data directory.  Calls go on meanwhile; they are held up for the copy of what is known of
// the blocks (6 bytes a row), never for a disk.  Blocks, takes as long as the disk does; `stopped`
// is asked now and then, and ends it with CANCELLED.
//
// INVALID_ARGUMENT: no plain name; FAILED_PRECONDITION: there is no backup_dir; ALREADY_EXISTS;
// RESOURCE_EXHAUSTED: too little space.  Nothing is left behind then.
absl::StatusOr<proto::BackupReply> Backup(Shard* shard, const std::string& name,
                                          const std::function<bool()>& stopped);

// Asks the shard at `address` for a backup and waits for it.
absl::StatusOr<proto::BackupReply> RequestBackup(const std::string& address,
                                                 const std::string& name,
                                                 const Credentials& credentials);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_BACKUP_H_
