#include "replay_server/shard_id.h"

#include <fstream>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "replay_server/replace_file.h"

namespace troupe {
namespace {

uint64_t RandomId() {
  std::random_device device;
  const uint64_t id = uint64_t{device()} << 32 | device();
  return id == 0 ? 1 : id;
}

}  // namespace

absl::StatusOr<uint64_t> ReadOrMakeShardId(const std::string& data_dir) {
  const std::string path = absl::StrCat(data_dir, "/shard_id");
  std::string text;
  uint64_t id = 0;
  if (std::ifstream(path) >> text && absl::SimpleHexAtoi(text, &id) && id != 0) return id;
  id = RandomId();
  const absl::Status written = ReplaceFile(path, {absl::StrCat(absl::Hex(id), "\n")}, true);
  if (!written.ok()) return written;
  return id;
}

}  // namespace troupe
