#include "deploy/operator/backup.h"

#include <filesystem>
#include <iostream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "deploy/operator/shards.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

absl::Status Failed(absl::string_view what, const fs::path& path, const std::error_code& error) {
  return absl::FailedPreconditionError(
      absl::StrCat("cannot ", what, " ", path.string(), ": ", error.message()));
}

// Made before the shards are asked, or hours of copying might be for nothing.
absl::Status MakeOutput(const std::string& path) {
  std::error_code error;
  if (fs::exists(path, error)) {
    return absl::AlreadyExistsError(absl::StrCat("--output: ", path, " is there already"));
  }
  fs::create_directories(path, error);
  return error ? Failed("make --output", path, error) : absl::OkStatus();
}

// Across file systems it is copied; it appears under its name when it is whole.
absl::Status Move(const fs::path& from, const fs::path& to) {
  std::error_code error;
  if (!fs::is_directory(from, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat(from.string(), " is not on this machine: the backup stays there"));
  }
  fs::rename(from, to, error);
  if (!error) return absl::OkStatus();
  const fs::path copy = to.string() + "~";
  fs::copy(from, copy, fs::copy_options::recursive, error);
  if (!error) fs::rename(copy, to, error);
  if (error) return Failed("copy to", to, error);
  fs::remove_all(from, error);
  return error ? Failed("remove", from, error) : absl::OkStatus();
}

// After nothing came of it.
void RemoveIfEmpty(const fs::path& path) {
  std::error_code error;
  if (fs::is_empty(path, error) && !error) fs::remove(path, error);
}

void Print(const std::string& address, const std::string& directory,
           const proto::BackupReply& reply) {
  std::cout << address << ": " << directory << ": " << reply.rows() << " rows, "
            << reply.size_bytes() << " bytes; " << reply.rows_evicted()
            << " rows were evicted meanwhile" << std::endl;
}

}  // namespace

absl::Status RunBackup(const Program& program, const BackupOptions& options) {
  absl::StatusOr<std::vector<ShardContact>> links = LinkShards(program);
  if (!links.ok()) return links.status();
  if (!options.output.empty()) {
    if (absl::Status status = MakeOutput(options.output); !status.ok()) return status;
  }
  const std::string name = options.name.empty() ? absl::FormatTime("backup-%Y%m%d-%H%M%S",
                                                                   absl::Now(), absl::UTCTimeZone())
                                                : options.name;
  std::vector<proto::BackupReply> replies(links->size());
  std::vector<absl::Status> statuses =
      CallAll(*links, "no backup of", absl::InfiniteDuration(), program.stop,
              [&](size_t shard, grpc::ClientContext* context) {
                proto::BackupRequest request;
                request.set_name(absl::StrCat(name, "-", shard));
                return (*links)[shard].stub->Backup(context, request, &replies[shard]);
              });
  for (size_t shard = 0; shard < links->size(); ++shard) {
    if (!statuses[shard].ok()) continue;
    std::string directory = replies[shard].directory();
    if (!options.output.empty()) {
      const fs::path to = fs::path(options.output) / absl::StrCat("shard-", shard);
      statuses[shard] = Move(directory, to);
      if (statuses[shard].ok()) directory = to;
    }
    Print((*links)[shard].address, directory, replies[shard]);
  }
  if (!options.output.empty()) RemoveIfEmpty(options.output);
  return AllOf(statuses);
}

}  // namespace troupe
