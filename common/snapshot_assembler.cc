#include "common/snapshot_assembler.h"

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"

namespace troupe {

absl::StatusOr<std::shared_ptr<Snapshot>> SnapshotAssembler::Add(
    const proto::SnapshotChunk& chunk) {
  if (chunk.has_header()) {
    if (absl::Status status = Begin(chunk.header()); !status.ok()) return status;
  }
  if (snapshot_ == nullptr) return absl::DataLossError("a chunk before any header");
  if (chunk.data().size() > size_bytes_ - snapshot_->image.size()) {
    return absl::DataLossError(absl::StrCat("more than the ", size_bytes_,
                                            " bytes announced for version ", snapshot_->version));
  }
  snapshot_->image.append(chunk.data());
  if (snapshot_->image.size() < size_bytes_) return nullptr;
  const uint32_t crc32c = Crc32c(0, snapshot_->image.data(), snapshot_->image.size());
  if (crc32c != snapshot_->crc32c) {
    return absl::DataLossError(absl::StrCat("digest of version ", snapshot_->version, " is ",
                                            crc32c, ", announced was ", snapshot_->crc32c));
  }
  return std::exchange(snapshot_, nullptr);
}

absl::Status SnapshotAssembler::Begin(const proto::SnapshotHeader& header) {
  if (snapshot_ != nullptr) {
    return absl::DataLossError(absl::StrCat("version ", snapshot_->version, " breaks off after ",
                                            snapshot_->image.size(), " of ", size_bytes_,
                                            " bytes"));
  }
  if (header.run() != run_ || header.version() == 0) {
    return absl::DataLossError(absl::StrCat("version ", header.version(), " of run '", header.run(),
                                            "', expected run '", run_, "'"));
  }
  if (header.size_bytes() < 1 || header.size_bytes() > static_cast<uint64_t>(max_snapshot_bytes_)) {
    return absl::DataLossError(absl::StrCat("version ", header.version(), " of ",
                                            header.size_bytes(), " bytes, must be 1 to ",
                                            max_snapshot_bytes_));
  }
  size_bytes_ = header.size_bytes();
  snapshot_ = std::make_shared<Snapshot>();
  snapshot_->run = header.run();
  snapshot_->version = header.version();
  snapshot_->created_unix_ns = header.created_unix_ns();
  snapshot_->crc32c = header.crc32c();
  return absl::OkStatus();
}

}  // namespace troupe
