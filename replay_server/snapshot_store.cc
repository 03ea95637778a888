#include "replay_server/snapshot_store.h"

#include <spdlog/spdlog.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "common/version.h"
#include "proto/weights.pb.h"
#include "replay_server/replace_file.h"

namespace troupe {
namespace {

// File: magic, u32 size of the header, proto::SnapshotHeader, u32 CRC-32C of it, image.
constexpr absl::string_view kMagic = "TROUPESN";

std::string EncodeHeader(const Snapshot& snapshot) {
  proto::SnapshotHeader header;
  header.set_run(snapshot.run);
  header.set_version(snapshot.version);
  header.set_size_bytes(snapshot.image.size());
  header.set_crc32c(snapshot.crc32c);
  header.set_created_unix_ns(snapshot.created_unix_ns);
  const std::string bytes = header.SerializeAsString();
  const auto size = static_cast<uint32_t>(bytes.size());
  const uint32_t check = Crc32c(0, bytes.data(), bytes.size());
  std::string result(kMagic);
  result.append(reinterpret_cast<const char*>(&size), sizeof(size));
  result.append(bytes);
  result.append(reinterpret_cast<const char*>(&check), sizeof(check));
  return result;
}

absl::StatusOr<Snapshot> Parse(absl::string_view file) {
  const absl::Status damaged = absl::DataLossError("not a snapshot, or damaged");
  uint32_t size;
  uint32_t check;
  if (file.substr(0, kMagic.size()) != kMagic) return damaged;
  file.remove_prefix(kMagic.size());
  if (file.size() < sizeof(size)) return damaged;
  std::memcpy(&size, file.data(), sizeof(size));
  file.remove_prefix(sizeof(size));
  if (file.size() < sizeof(check) || file.size() - sizeof(check) < size) return damaged;
  std::memcpy(&check, file.data() + size, sizeof(check));
  proto::SnapshotHeader header;
  if (Crc32c(0, file.data(), size) != check ||
      !header.ParseFromArray(file.data(), static_cast<int>(size))) {
    return damaged;
  }
  file.remove_prefix(size + sizeof(check));
  if (file.size() != header.size_bytes() ||
      Crc32c(0, file.data(), file.size()) != header.crc32c()) {
    return damaged;
  }
  return Snapshot{header.run(), header.version(), header.created_unix_ns(), header.crc32c(),
                  std::string(file)};
}

}  // namespace

absl::Status SnapshotStore::Recover() {
  absl::MutexLock publish_lock(&publish_mu_);
  if (!std::filesystem::exists(path_)) return absl::OkStatus();
  std::ifstream file(path_, std::ios::binary);
  std::stringstream bytes;
  if (!file || !(bytes << file.rdbuf()))
    return absl::DataLossError(absl::StrCat("cannot read ", path_));
  absl::StatusOr<Snapshot> snapshot = Parse(bytes.str());
  if (!snapshot.ok()) {
    return absl::DataLossError(absl::StrCat(path_, ": ", snapshot.status().message()));
  }
  absl::MutexLock lock(&mu_);
  newest_ = std::make_shared<const Snapshot>(*std::move(snapshot));
  return absl::OkStatus();
}

SnapshotPtr SnapshotStore::newest() const {
  absl::MutexLock lock(&mu_);
  return newest_;
}

uint64_t SnapshotStore::newest_version() const {
  absl::MutexLock lock(&mu_);
  return newest_ == nullptr ? 0 : newest_->version;
}

uint64_t SnapshotStore::max_epoch() const { return PolicyVersion::Unpack(newest_version()).epoch; }

absl::Status SnapshotStore::CheckEpoch(uint64_t version) const {
  const uint64_t epoch = PolicyVersion::Unpack(version).epoch;
  const uint64_t held = max_epoch();
  if (epoch >= held) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("snapshot of epoch ", epoch, " refused: a learner of epoch ", held,
                   " has published here, so another learner took over"));
}

absl::Status SnapshotStore::Write(const Snapshot& snapshot) const {
  return ReplaceFile(path_, {EncodeHeader(snapshot), snapshot.image}, synced_);
}

absl::StatusOr<uint64_t> SnapshotStore::Publish(Snapshot snapshot) {
  const uint32_t digest = Crc32c(0, snapshot.image.data(), snapshot.image.size());
  if (digest != snapshot.crc32c) {
    return absl::InvalidArgumentError(absl::StrCat("snapshot ", snapshot.version, ": digest is ",
                                                   digest, " where the header says ",
                                                   snapshot.crc32c));
  }
  absl::MutexLock publish_lock(&publish_mu_);
  if (absl::Status status = CheckEpoch(snapshot.version); !status.ok()) return status;
  if (const uint64_t held = newest_version(); snapshot.version <= held) return held;
  if (absl::Status status = Write(snapshot); !status.ok()) {
    write_failures_++;
    spdlog::error("SNAPSHOT {} IS NOT ON THE DISK, and lost if this process dies: {}",
                  snapshot.version, status.ToString());
  }
  const uint64_t version = snapshot.version;
  std::vector<std::function<void()>> listeners;
  {
    absl::MutexLock lock(&mu_);
    newest_ = std::make_shared<const Snapshot>(std::move(snapshot));
    for (const auto& [id, listener] : listeners_) listeners.push_back(listener);
  }
  for (const auto& listener : listeners) listener();
  return version;
}

uint64_t SnapshotStore::AddListener(std::function<void()> listener) {
  absl::MutexLock lock(&mu_);
  listeners_.emplace(++newest_listener_, std::move(listener));
  return newest_listener_;
}

void SnapshotStore::RemoveListener(uint64_t id) {
  absl::MutexLock lock(&mu_);
  listeners_.erase(id);
}

}  // namespace troupe
