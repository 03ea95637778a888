// The chunks that a subscriber gets: messages, each after two bytes of its length.  Whatever is
// put together of them is of our run, no larger than allowed, and matches its digest.
#include "common/crc32c.h"
#include "common/snapshot_assembler.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

constexpr int64_t kMaxBytes = 256;

void TestOne(absl::string_view input) {
  SnapshotAssembler assembler("run", kMaxBytes);
  while (input.size() >= 2) {
    proto::SnapshotChunk chunk;
    const absl::string_view message = TakeMessage(&input);
    if (!chunk.ParseFromArray(message.data(), static_cast<int>(message.size()))) return;
    // Without a digest: it is filled in, or hardly any snapshot would be whole.
    if (chunk.has_header() && chunk.header().crc32c() == 0) {
      chunk.mutable_header()->set_crc32c(Crc32c(0, chunk.data().data(), chunk.data().size()));
    }
    const absl::StatusOr<std::shared_ptr<Snapshot>> snapshot = assembler.Add(chunk);
    if (!snapshot.ok()) return Require(absl::IsDataLoss(snapshot.status()), snapshot.status());
    if (*snapshot == nullptr) continue;
    const std::string& image = (*snapshot)->image;
    Require((*snapshot)->run == "run" && (*snapshot)->version > 0, "a snapshot of another run");
    Require(!image.empty() && image.size() <= kMaxBytes, "a snapshot of ", image.size(), " bytes");
    Require(Crc32c(0, image.data(), image.size()) == (*snapshot)->crc32c, "another digest");
  }
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
