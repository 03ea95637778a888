#include "tests/fuzz/memory_file.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "replay_server/mapped_file.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

// No file of the targets comes near it but those that say so themselves.
constexpr uint64_t kDiskBytes = 1 << 20;

std::map<std::string, std::vector<uint8_t>>& Files() {
  static auto* const files = new std::map<std::string, std::vector<uint8_t>>;
  return *files;
}

}  // namespace

std::vector<uint8_t>& MemoryFile(const std::string& path) { return Files()[path]; }
void RemoveMemoryFile(const std::string& path) { Files().erase(path); }

absl::Status FileError(const std::string& what, const std::string& path, int error_number) {
  return absl::InternalError(absl::StrCat(what, " ", path, ": ", error_number));
}

// The row log makes its file under this name and a suffix, and renames it later.
absl::StatusOr<MappedFile> MappedFile::CreateSparse(const std::string& path, uint64_t size_bytes,
                                                    uint64_t allocated_bytes) {
  std::vector<uint8_t>& file = MemoryFile(std::string(absl::StripSuffix(path, ".tmp")));
  file = std::vector<uint8_t>(size_bytes, 0);
  return MappedFile(path, -1, file.data(), file.size());
}

absl::StatusOr<MappedFile> MappedFile::OpenPrivate(const std::string& path) {
  const auto found = Files().find(path);
  if (found == Files().end()) return absl::NotFoundError(path);
  const std::string copy = path + "~";
  MemoryFile(copy) = std::vector<uint8_t>(found->second);
  return Open(copy);
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  const auto found = Files().find(path);
  if (found == Files().end()) return absl::NotFoundError(path);
  if (found->second.empty()) return absl::DataLossError(absl::StrCat(path, " is empty"));
  return MappedFile(path, -1, found->second.data(), found->second.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

MappedFile::~MappedFile() = default;

absl::Status MappedFile::Grow(uint64_t size_bytes, uint64_t allocated_bytes) {
  if (size_bytes > kDiskBytes) return absl::ResourceExhaustedError("a full disk");
  MemoryFile(path_).resize(size_bytes);
  data_ = MemoryFile(path_).data();
  size_bytes_ = size_bytes;
  return absl::OkStatus();
}
absl::Status MappedFile::Rename(const std::string& path) { return absl::OkStatus(); }
absl::Status MappedFile::Sync() const { return absl::OkStatus(); }
absl::Status MappedFile::Allocate(uint64_t offset, uint64_t size_bytes) { return absl::OkStatus(); }
bool MappedFile::GiveBack(uint64_t offset, uint64_t size_bytes) { return false; }
void MappedFile::Redirty(uint64_t offset, uint64_t size_bytes) {}
absl::Status SyncDirectory(const std::string& directory) { return absl::OkStatus(); }

}  // namespace troupe
