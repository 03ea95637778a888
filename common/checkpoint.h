#ifndef TROUPE_COMMON_CHECKPOINT_H_
#define TROUPE_COMMON_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace troupe {

// One saved state of a run: files, and the counters that go with them.
struct Checkpoint {
  // Orders checkpoints: the largest is the newest. Unit: updates. Range: 0 to 10^12.
  int64_t updates = 0;
  std::map<std::string, int64_t> counters;
  std::map<std::string, std::string> files;  // contents by name, no slashes
};

// The file of a checkpoint that holds the newest policy that was published by then, as a snapshot's
// image (common/policy.h); there is none before the first one.
inline constexpr char kPolicyFile[] = "policy.safetensors";

// The checkpoints of one run, each a folder named after its updates (000000005000), with its files
// and, written last, checkpoint.json: counters, sizes and digests.
//
// A folder appears under its name whole and flushed to disk, or not at all.  Not thread-safe; one
// process writes a directory at a time.
class CheckpointDirectory final {
 public:
  // Keeps the newest `keep` checkpoints, at least 1.  Makes nothing yet.
  CheckpointDirectory(std::string path, int keep);

  // Errors name the path; the checkpoints that were there before are still there then.
  absl::Status Write(const Checkpoint& checkpoint);

  struct Found {
    Checkpoint checkpoint;
    std::string path;
    std::vector<std::string> skipped;  // newer ones that are broken, and why
  };
  // The newest one whose files match their digests.  NOT_FOUND: there is none at all; DATA_LOSS:
  // all are broken, in which way.
  absl::StatusOr<Found> ReadNewest() const;
  // The one in this very folder.  NOT_FOUND: there is none; DATA_LOSS names what is broken.
  static absl::StatusOr<Checkpoint> ReadOne(const std::string& folder);

 private:
  const std::string path_;
  const int keep_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_CHECKPOINT_H_
