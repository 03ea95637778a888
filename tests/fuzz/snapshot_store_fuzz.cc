// The snapshot file of a shard, and snapshots that are published over what it holds.  The input is
// the size of a serialized SnapshotHeader, the header, the image; after an 'R' the file itself.
#include "common/crc32c.h"
#include "common/version.h"
#include "proto/weights.pb.h"
#include "replay_server/snapshot_store.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

void AppendNumber(uint32_t number, std::string* out) {
  out->append(reinterpret_cast<const char*>(&number), sizeof(number));
}

// The file that SnapshotStore writes for this header and image.
std::string File(const std::string& header, const std::string& image) {
  std::string file = "TROUPESN";
  AppendNumber(static_cast<uint32_t>(header.size()), &file);
  file += header;
  AppendNumber(Crc32c(0, header.data(), header.size()), &file);
  return file + image;
}

std::string FileOf(absl::string_view input) {
  if (!input.empty() && input[0] == 'R') return std::string(input.substr(1));
  if (input.empty()) return "";
  // The length in front, not a zero byte at the end: the header has zero bytes of its own.
  const size_t header_bytes = std::min<size_t>(static_cast<uint8_t>(input[0]), input.size() - 1);
  std::string header(input.substr(1, header_bytes));
  const std::string image(input.substr(1 + header_bytes));
  proto::SnapshotHeader message;
  if (message.ParseFromString(header) && message.crc32c() == 0) {
    message.set_crc32c(Crc32c(0, image.data(), image.size()));
    header = message.SerializeAsString();
  }
  return File(header, image);
}

void CheckHeld(const SnapshotPtr& held) {
  if (held == nullptr) return;
  Require(Crc32c(0, held->image.data(), held->image.size()) == held->crc32c,
          "a snapshot is held whose digest does not match");
}

void TestOne(absl::string_view input) {
  static const std::string path = OwnPath("snapshot");
  WriteWhole(path, FileOf(input));
  SnapshotStore store(path);
  const absl::Status status = store.Recover();
  Require(status.ok() || absl::IsDataLoss(status), status);
  Require(status.ok() == (store.newest() != nullptr), "an OK without a snapshot");
  CheckHeld(store.newest());
  const uint64_t held = store.newest_version();
  Snapshot next{.run = "run", .version = held + 1, .image = std::string(input)};
  next.crc32c = Crc32c(0, next.image.data(), next.image.size());
  // Of each eighth input only: it costs much more than the rest.
  if (next.version == 0 || input.size() % 8 != 0) return;
  const absl::StatusOr<uint64_t> published = store.Publish(next);
  Require(published.ok() && *published == next.version, published.status());
  CheckHeld(store.newest());
  next.crc32c++;
  next.version++;
  Require(!store.Publish(next).ok(), "a wrong digest was accepted");
  SnapshotStore restarted(path);
  Require(restarted.Recover().ok() && restarted.newest_version() == held + 1,
          "what was published is gone after a restart");
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
