#ifndef TROUPE_COMMON_SNAPSHOT_H_
#define TROUPE_COMMON_SNAPSHOT_H_

#include <cstdint>
#include <memory>
#include <string>

namespace troupe {

// One immutable policy as it travels: a version and a safetensors image.  What the image holds is
// common/policy.h's business; relays and subscribers only move bytes whose digest they checked.
struct Snapshot {
  std::string run;
  uint64_t version = 0;  // PolicyVersion::Packed(); never 0
  uint64_t created_unix_ns = 0;
  uint32_t crc32c = 0;  // of `image`
  std::string image;
};
using SnapshotPtr = std::shared_ptr<const Snapshot>;

}  // namespace troupe

#endif  // TROUPE_COMMON_SNAPSHOT_H_
