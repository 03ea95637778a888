#include "common/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/crc32c.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kMarker[] = "checkpoint.json";
constexpr char kFormat[] = "troupe.checkpoint.1";
constexpr int kNameDigits = 12;

absl::Status Failed(absl::string_view what, const fs::path& path, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat("cannot ", what, " ", path.string()));
}

absl::Status Failed(absl::string_view what, const fs::path& path, const std::error_code& error) {
  return Failed(what, path, error.value());
}

// Flushes a file or a directory to disk.
absl::Status Flush(const fs::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Failed("open", path, errno);
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error == 0 ? absl::OkStatus() : Failed("flush", path, error);
}

absl::Status WriteFile(const fs::path& path, const std::string& contents) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return Failed("create", path, errno);
  int error = 0;
  for (size_t written = 0; written < contents.size() && error == 0;) {
    const ssize_t n = write(fd, contents.data() + written, contents.size() - written);
    if (n >= 0) written += n;
    if (n < 0 && errno != EINTR) error = errno;
  }
  if (error == 0 && fsync(fd) != 0) error = errno;
  if (close(fd) != 0 && error == 0) error = errno;
  return error == 0 ? absl::OkStatus() : Failed("write", path, error);
}

absl::StatusOr<std::string> ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream contents;
  contents << file.rdbuf();
  if (!file) return absl::DataLossError(absl::StrCat("cannot read ", path.string()));
  return std::move(contents).str();
}

std::string Marker(const Checkpoint& checkpoint) {
  json files = json::object();
  for (const auto& [name, contents] : checkpoint.files) {
    files[name] = {{"size", contents.size()},
                   {"crc32c", Crc32c(0, contents.data(), contents.size())}};
  }
  const json marker = {{"format", kFormat},
                       {"updates", checkpoint.updates},
                       {"counters", checkpoint.counters},
                       {"files", files}};
  return marker.dump(2) + "\n";
}

absl::Status WriteFiles(const Checkpoint& checkpoint, const fs::path& folder) {
  for (const auto& [name, contents] : checkpoint.files) {
    if (absl::Status status = WriteFile(folder / name, contents); !status.ok()) return status;
  }
  absl::Status status = WriteFile(folder / kMarker, Marker(checkpoint));
  if (status.ok()) status = Flush(folder);
  return status;
}

// Puts `made` in the place of `folder`, which a checkpoint of the same updates may hold.
absl::Status Replace(const fs::path& made, const fs::path& folder, const fs::path& aside) {
  std::error_code error;
  if (fs::exists(folder, error)) {
    fs::remove_all(aside, error);
    fs::rename(folder, aside, error);
    if (error) return Failed("rename", folder, error);
  }
  fs::rename(made, folder, error);
  if (error) return Failed("rename", made, error);
  fs::remove_all(aside, error);
  return Flush(folder.parent_path());
}

// Folders of checkpoints, the newest first.
std::vector<fs::path> List(const fs::path& directory) {
  std::vector<fs::path> folders;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename();
    const bool digits = std::all_of(name.begin(), name.end(), absl::ascii_isdigit);
    if (digits && name.size() >= kNameDigits) folders.push_back(entry->path());
  }
  std::sort(folders.begin(), folders.end(), [](const fs::path& a, const fs::path& b) {
    const std::string x = a.filename(), y = b.filename();
    return std::make_pair(x.size(), x) > std::make_pair(y.size(), y);
  });
  return folders;
}

// A number that the JSON library would otherwise make of whatever number is there.
absl::Status ReadWhole(const std::string& name, const json& field, int64_t min, int64_t& value) {
  const bool fits =
      field.is_number_unsigned() ? field.get<uint64_t>() <= INT64_MAX : field.is_number_integer();
  if (fits) value = field.get<int64_t>();
  if (fits && value >= min) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("'", name, "' is no whole number of at least ", min));
}

// Fills in counters and files as the marker says.  Exceptions of the JSON library end in Read.
absl::Status ReadChecked(const fs::path& folder, const json& marker, Checkpoint& checkpoint) {
  absl::Status status = ReadWhole("updates", marker.at("updates"), 0, checkpoint.updates);
  const json& counters = marker.at("counters");
  if (!counters.is_object()) return absl::DataLossError("'counters' is no JSON object");
  for (const auto& [name, value] : counters.items()) {
    status.Update(ReadWhole(name, value, INT64_MIN, checkpoint.counters[name]));
  }
  if (!status.ok()) return status;
  for (const auto& [name, entry] : marker.at("files").items()) {
    if (name.find('/') != std::string::npos) {
      return absl::DataLossError(absl::StrCat("'", name, "' is no file name"));
    }
    absl::StatusOr<std::string> contents = ReadFile(folder / name);
    if (!contents.ok()) return contents.status();
    if (entry.at("size") != contents->size() ||
        entry.at("crc32c") != Crc32c(0, contents->data(), contents->size())) {
      return absl::DataLossError(absl::StrCat("the digest of ", (folder / name).string(), " (",
                                              contents->size(), " bytes) does not match"));
    }
    checkpoint.files[name] = *std::move(contents);
  }
  return absl::OkStatus();
}

absl::StatusOr<Checkpoint> Read(const fs::path& folder) {
  const absl::StatusOr<std::string> text = ReadFile(folder / kMarker);
  if (!text.ok()) return text.status();
  try {
    const json marker = json::parse(*text);
    if (marker.at("format") != kFormat) return absl::DataLossError("another format");
    Checkpoint checkpoint;
    absl::Status status = ReadChecked(folder, marker, checkpoint);
    if (!status.ok()) return status;
    return checkpoint;
  } catch (const json::exception& e) {
    return absl::DataLossError(absl::StrCat((folder / kMarker).string(), ": ", e.what()));
  }
}

}  // namespace

CheckpointDirectory::CheckpointDirectory(std::string path, int keep)
    : path_(std::move(path)), keep_(std::max(keep, 1)) {}

absl::Status CheckpointDirectory::Write(const Checkpoint& checkpoint) {
  const fs::path directory(path_);
  const std::string name = absl::StrFormat("%0*d", kNameDigits, checkpoint.updates);
  const fs::path made = directory / absl::StrCat(".new-", name);
  std::error_code error;
  fs::remove_all(made, error);
  fs::create_directories(made, error);
  if (error) return Failed("make", made, error);
  absl::Status status = WriteFiles(checkpoint, made);
  if (status.ok()) {
    status = Replace(made, directory / name, directory / absl::StrCat(".old-", name));
  }
  if (!status.ok()) {
    fs::remove_all(made, error);
    return status;
  }
  const std::vector<fs::path> all = List(directory);
  for (size_t i = keep_; i < all.size(); ++i) fs::remove_all(all[i], error);
  return absl::OkStatus();
}

absl::StatusOr<CheckpointDirectory::Found> CheckpointDirectory::ReadNewest() const {
  Found found;
  for (const fs::path& folder : List(path_)) {
    absl::StatusOr<Checkpoint> checkpoint = Read(folder);
    if (checkpoint.ok()) {
      found.checkpoint = *std::move(checkpoint);
      found.path = folder;
      return found;
    }
    found.skipped.push_back(absl::StrCat(folder.string(), ": ", checkpoint.status().message()));
  }
  if (found.skipped.empty()) return absl::NotFoundError(absl::StrCat("no checkpoint in ", path_));
  return absl::DataLossError(
      absl::StrCat("every checkpoint is broken: ", absl::StrJoin(found.skipped, "; ")));
}

absl::StatusOr<Checkpoint> CheckpointDirectory::ReadOne(const std::string& folder) {
  return Read(folder);
}

}  // namespace troupe
