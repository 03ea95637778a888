#include "replay_server/backup.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "proto/replay.grpc.pb.h"
#include "replay_server/mapped_file.h"
#include "replay_server/new_directory.h"
#include "replay_server/snapshot_store.h"
#include "replay_server/table.h"

namespace troupe {
namespace {

constexpr size_t kMaxNameBytes = 64;

// Rows copied while their block is pinned.
constexpr uint64_t kChunkBytes = 256 << 10;

absl::Status CheckName(const std::string& name) {
  bool ok = !name.empty() && name.size() <= kMaxNameBytes && name[0] != '.';
  for (const char c : name) ok = ok && (absl::ascii_isalnum(c) || absl::StrContains("_-.", c));
  if (ok) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a backup's name is 1 to ", kMaxNameBytes,
                   " letters, digits, '_', '-' and '.', the first no '.'; '", name, "' is not"));
}

// The copy of one table's row log.
class LogCopy final {
 public:
  // Makes the file, all of it allocated but the places of encoded rows.
  static absl::StatusOr<LogCopy> Make(Table* table, const LogMetadata& metadata,
                                      const std::string& path) {
    absl::StatusOr<LogGeometry> geometry = ComputeGeometry(metadata);
    if (!geometry.ok()) return geometry.status();
    absl::StatusOr<MappedFile> file =
        MappedFile::CreateSparse(path, geometry->file_bytes, AllocatedBytes(*geometry));
    if (!file.ok()) return file.status();
    return LogCopy(table, *geometry, *std::move(file));
  }

  uint64_t rows() const { return rows_; }
  uint64_t rows_evicted() const { return rows_evicted_; }
  uint64_t size_bytes() const { return size_bytes_; }

  // The moment that the copy is of.
  void TakeMoment() { table_->CopyAllButRows(absl::MakeSpan(head_)); }
  // Copies the rows of that moment.
  absl::Status CopyRows(const std::function<bool()>& stopped);

 private:
  LogCopy(Table* table, const LogGeometry& geometry, MappedFile file)
      : table_(table),
        geometry_(geometry),
        file_(std::move(file)),
        size_bytes_(AllocatedBytes(geometry)),
        // In memory of its own: storing into a file may wait for a disk, and the table with it.
        head_(geometry.rows_offset) {}
  BlockHeader* headers() {
    return reinterpret_cast<BlockHeader*>(file_.data() + geometry_.headers_offset);
  }
  absl::Status TakeSpace(uint64_t offset, uint64_t size_bytes);
  absl::StatusOr<bool> CopyBlock(const BlockHeader& header, uint32_t row_count);

  Table* table_;
  LogGeometry geometry_;
  MappedFile file_;
  uint64_t size_bytes_;
  std::vector<uint8_t> head_;   // what the file begins with: all but the rows
  std::vector<uint8_t> chunk_;  // scratch
  uint64_t rows_ = 0;
  uint64_t rows_evicted_ = 0;
};

uint32_t CommittedRows(const BlockHeader& header) {
  uint32_t rows = 0;
  for (const CommitSlot& slot : header.slots) {
    if (slot.check == CommitCheck(header, slot)) rows = std::max(rows, slot.row_count);
  }
  return rows;
}

absl::Status LogCopy::CopyRows(const std::function<bool()>& stopped) {
  std::memcpy(file_.data(), head_.data(), head_.size());
  head_ = {};
  std::vector<BlockHeader*> oldest_first;
  for (uint64_t block = 0; block < geometry_.num_blocks; ++block) {
    BlockHeader* header = &headers()[block];
    if (header->generation != 0 && header->generation != kEvicted) oldest_first.push_back(header);
  }
  std::sort(oldest_first.begin(), oldest_first.end(),
            [](BlockHeader* a, BlockHeader* b) { return a->generation < b->generation; });
  for (BlockHeader* header : oldest_first) {
    if (stopped()) return absl::CancelledError("the backup was stopped");
    const uint32_t row_count = CommittedRows(*header);
    const absl::StatusOr<bool> copied = CopyBlock(*header, row_count);
    if (!copied.ok()) return copied.status();
    if (*copied) {
      rows_ += row_count;
    } else {
      header->generation = kEvicted;
      rows_evicted_ += row_count;
    }
  }
  return file_.Sync();
}

absl::Status LogCopy::TakeSpace(uint64_t offset, uint64_t size_bytes) {
  if (geometry_.rows.all_alike()) return absl::OkStatus();
  size_bytes_ += size_bytes;
  return file_.Allocate(offset, size_bytes);
}

// False: the block was evicted before all of it was copied.
absl::StatusOr<bool> LogCopy::CopyBlock(const BlockHeader& header, uint32_t row_count) {
  const uint64_t stride = geometry_.stride_bytes;
  const uint64_t index = (header.generation - 1) % geometry_.num_blocks;
  const auto first_slot = static_cast<uint32_t>(header.first_row % kRowsPerBlock);
  const uint64_t rows_a_chunk = std::max<uint64_t>(kChunkBytes / stride, 1);
  uint64_t offset = geometry_.block_offset(index);
  if (geometry_.rows.all_alike()) offset += first_slot * stride;
  for (uint32_t done = 0; done < row_count;) {
    const auto count = static_cast<uint32_t>(std::min<uint64_t>(row_count - done, rows_a_chunk));
    PinnedRows rows;
    if (!table_->PinRows(header.generation, first_slot + done, count, &rows)) return false;
    chunk_.resize(rows.size_bytes());
    rows.MoveTo(chunk_.data());
    if (absl::Status status = TakeSpace(offset, chunk_.size()); !status.ok()) return status;
    std::memcpy(file_.data() + offset, chunk_.data(), chunk_.size());
    offset += chunk_.size();
    done += count;
  }
  return true;
}

absl::Status CopySnapshot(const SnapshotPtr& snapshot, const std::string& path) {
  if (snapshot == nullptr) return absl::OkStatus();
  SnapshotStore copy(path);
  return copy.Publish(*snapshot).status();
}

}  // namespace

absl::StatusOr<proto::BackupReply> Backup(Shard* shard, const std::string& name,
                                          const std::function<bool()>& stopped) {
  if (absl::Status status = CheckName(name); !status.ok()) return status;
  if (shard->options().backup_dir.empty()) {
    return absl::FailedPreconditionError(
        "replay_server.backup_dir is not set in the shard's config");
  }
  proto::BackupReply reply;
  reply.set_directory(absl::StrCat(shard->options().backup_dir, "/", name));
  absl::StatusOr<NewDirectory> directory = NewDirectory::Make(reply.directory());
  if (!directory.ok()) return directory.status();
  std::vector<LogCopy> copies;
  for (const std::unique_ptr<Table>& table : shard->tables()) {
    const std::optional<LogMetadata> metadata = table->log_metadata();
    if (!metadata.has_value()) continue;
    absl::StatusOr<LogCopy> copy = LogCopy::Make(
        table.get(), *metadata, directory->File(absl::StrCat(table->options().name, ".rows")));
    if (!copy.ok()) return copy.status();
    copies.push_back(*std::move(copy));
  }
  const SnapshotPtr snapshot = shard->snapshots().newest();
  for (LogCopy& copy : copies) copy.TakeMoment();
  for (LogCopy& copy : copies) {
    if (absl::Status status = copy.CopyRows(stopped); !status.ok()) return status;
    reply.set_rows(reply.rows() + copy.rows());
    reply.set_rows_evicted(reply.rows_evicted() + copy.rows_evicted());
    reply.set_size_bytes(reply.size_bytes() + copy.size_bytes());
  }
  absl::Status status = CopySnapshot(snapshot, directory->File("snapshot"));
  if (status.ok()) status = directory->Appear();
  if (!status.ok()) return status;
  return reply;
}

absl::StatusOr<proto::BackupReply> RequestBackup(const std::string& address,
                                                 const std::string& name,
                                                 const Credentials& credentials) {
  const auto of_channel = credentials.ForChannel(address);
  if (!of_channel.ok()) return of_channel.status();
  const auto stub = proto::Replay::NewStub(grpc::CreateChannel(address, *of_channel));
  grpc::ClientContext context;
  proto::BackupRequest request;
  request.set_name(name);
  proto::BackupReply reply;
  const grpc::Status status = stub->Backup(&context, request, &reply);
  if (status.ok()) return reply;
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      absl::StrCat("no backup of ", address, ": ", status.error_message()));
}

}  // namespace troupe
