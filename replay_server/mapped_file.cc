#include "replay_server/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace troupe {
namespace {

absl::Status NoSpace(const std::string& path, uint64_t size_bytes, uint64_t free_bytes) {
  return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", size_bytes, " bytes for ",
                                                   path, ": ", free_bytes,
                                                   " bytes are free on its file system"));
}

uint64_t FreeBytes(int fd) {
  struct statvfs info;
  if (fstatvfs(fd, &info) != 0) return 0;
  return uint64_t{info.f_bavail} * info.f_frsize;
}

// What the signal handler knows of mapped files: it may not take locks.  A slot is free while its
// `begin` is 0; only the last change of a slot sets it.
struct MappedRange {
  std::atomic<bool> taken{false};
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  char path[PATH_MAX];
};
MappedRange mapped_ranges[64];  // files beyond are not named

void NoteMapped(const std::string& path, const uint8_t* data, uint64_t size_bytes) {
  for (MappedRange& range : mapped_ranges) {
    if (range.taken.exchange(true)) continue;
    absl::SNPrintF(range.path, sizeof(range.path), "%s", path);
    range.end = reinterpret_cast<uintptr_t>(data) + size_bytes;
    range.begin = reinterpret_cast<uintptr_t>(data);
    return;
  }
}

void NoteUnmapped(const uint8_t* data) {
  for (MappedRange& range : mapped_ranges) {
    if (range.begin != reinterpret_cast<uintptr_t>(data)) continue;
    range.begin = 0;
    range.end = 0;
    range.taken = false;
    return;
  }
}

void WriteText(const char* text) {
  const ssize_t written = write(STDERR_FILENO, text, strlen(text));
  static_cast<void>(written);  // there is nobody left to tell
}

void OnBusError(int, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  const char* path = "a mapped file";
  for (const MappedRange& range : mapped_ranges) {
    if (range.begin != 0 && address >= range.begin && address < range.end) path = range.path;
  }
  WriteText("THE DISK FAILED: cannot read ");
  WriteText(path);
  WriteText(" (SIGBUS)\n");
  _exit(1);
}

// `sharing`: MAP_SHARED or MAP_PRIVATE.
absl::StatusOr<uint8_t*> Map(int fd, const std::string& path, uint64_t size_bytes, int sharing) {
  void* data = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, sharing, fd, 0);
  if (data == MAP_FAILED) return FileError("cannot map", path, errno);
  NoteMapped(path, static_cast<uint8_t*>(data), size_bytes);
  return static_cast<uint8_t*>(data);
}

absl::StatusOr<uint64_t> FileSize(int fd, const std::string& path) {
  struct stat info;
  if (fstat(fd, &info) != 0) return FileError("cannot examine", path, errno);
  if (info.st_size == 0) return absl::DataLossError(absl::StrCat(path, " is empty"));
  return static_cast<uint64_t>(info.st_size);
}

constexpr uint64_t kPageBytes = 4096;

// Holes included.
absl::Status AllocateRange(int fd, const std::string& path, uint64_t offset, uint64_t size_bytes) {
  const int error = posix_fallocate(fd, static_cast<off_t>(offset), static_cast<off_t>(size_bytes));
  if (error == ENOSPC) return NoSpace(path, size_bytes, FreeBytes(fd));
  if (error != 0) {
    return FileError(absl::StrCat("cannot allocate ", size_bytes, " bytes for"), path, error);
  }
  return absl::OkStatus();
}

// Makes the file so large, and allocates its beginning.
absl::Status Extend(int fd, const std::string& path, uint64_t size_bytes,
                    uint64_t allocated_bytes) {
  absl::Status status = AllocateRange(fd, path, 0, allocated_bytes);
  if (!status.ok() || allocated_bytes == size_bytes) return status;
  if (ftruncate(fd, static_cast<off_t>(size_bytes)) == 0) return absl::OkStatus();
  return FileError(absl::StrCat("cannot make room for ", size_bytes, " bytes in"), path, errno);
}

}  // namespace

absl::Status FileError(const std::string& what, const std::string& path, int error_number) {
  const std::string text = absl::StrCat(
      what, " ", path, ": ", std::error_code(error_number, std::generic_category()).message());
  switch (error_number) {
    case ENOENT:
      return absl::NotFoundError(text);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(text);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(text);
    default:
      return absl::InternalError(text);
  }
}

absl::StatusOr<MappedFile> MappedFile::CreateSparse(const std::string& path, uint64_t size_bytes,
                                                    uint64_t allocated_bytes) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return FileError("cannot create", path, errno);
  absl::Cleanup close_file = [fd] { close(fd); };
  absl::Cleanup remove_file = [&path] { unlink(path.c_str()); };
  // Asked first, because posix_fallocate fills the disk before it fails.
  if (const uint64_t free_bytes = FreeBytes(fd); free_bytes < allocated_bytes) {
    return NoSpace(path, allocated_bytes, free_bytes);
  }
  absl::Status extended = Extend(fd, path, size_bytes, allocated_bytes);
  if (!extended.ok()) return extended;
  absl::StatusOr<uint8_t*> data = Map(fd, path, size_bytes, MAP_SHARED);
  if (!data.ok()) return data.status();
  std::move(remove_file).Cancel();
  std::move(close_file).Cancel();
  return MappedFile(path, fd, *data, size_bytes);
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return FileError("cannot open", path, errno);
  absl::Cleanup close_file = [fd] { close(fd); };
  absl::StatusOr<uint64_t> size_bytes = FileSize(fd, path);
  if (!size_bytes.ok()) return size_bytes.status();
  absl::StatusOr<uint8_t*> data = Map(fd, path, *size_bytes, MAP_SHARED);
  if (!data.ok()) return data.status();
  std::move(close_file).Cancel();
  return MappedFile(path, fd, *data, *size_bytes);
}

absl::StatusOr<MappedFile> MappedFile::OpenPrivate(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError("cannot open", path, errno);
  absl::Cleanup close_file = [fd] { close(fd); };
  absl::StatusOr<uint64_t> size_bytes = FileSize(fd, path);
  if (!size_bytes.ok()) return size_bytes.status();
  absl::StatusOr<uint8_t*> data = Map(fd, path, *size_bytes, MAP_PRIVATE);
  if (!data.ok()) return data.status();
  std::move(close_file).Cancel();
  return MappedFile(path, fd, *data, *size_bytes, /*is_private=*/true);
}

absl::StatusOr<uint8_t*> MappedFile::MapLarger(uint64_t size_bytes, uint64_t allocated_bytes) {
  if (!is_private_) {
    absl::Status extended = Extend(fd_, path_, size_bytes, allocated_bytes);
    if (!extended.ok()) return extended;
    absl::StatusOr<uint8_t*> data = Map(fd_, path_, size_bytes, MAP_SHARED);
    if (!data.ok()) return data.status();
    NoteUnmapped(data_);
    munmap(data_, size_bytes_);
    return data;
  }
  // Zeros, over the first of which goes what is mapped now, and with it what was stored there.
  void* data =
      mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return FileError("cannot make room for", path_, errno);
  NoteUnmapped(data_);
  if (mremap(data_, size_bytes_, size_bytes_, MREMAP_MAYMOVE | MREMAP_FIXED, data) == MAP_FAILED) {
    const int error_number = errno;
    munmap(data, size_bytes);
    return FileError("cannot map", path_, error_number);
  }
  NoteMapped(path_, static_cast<uint8_t*>(data), size_bytes);
  return static_cast<uint8_t*>(data);
}

absl::Status MappedFile::Grow(uint64_t size_bytes, uint64_t allocated_bytes) {
  absl::StatusOr<uint8_t*> data = MapLarger(size_bytes, allocated_bytes);
  if (!data.ok()) return data.status();
  data_ = *data;
  size_bytes_ = size_bytes;
  return absl::OkStatus();
}

absl::Status MappedFile::Allocate(uint64_t offset, uint64_t size_bytes) {
  if (is_private_ || size_bytes == 0) return absl::OkStatus();
  return AllocateRange(fd_, path_, offset, size_bytes);
}

bool MappedFile::GiveBack(uint64_t offset, uint64_t size_bytes) {
  const uint64_t begin = (offset + kPageBytes - 1) / kPageBytes * kPageBytes;
  const uint64_t end = (offset + size_bytes) / kPageBytes * kPageBytes;
  return begin < end && fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                  static_cast<off_t>(begin), static_cast<off_t>(end - begin)) == 0;
}

absl::Status MappedFile::Rename(const std::string& path) {
  if (rename(path_.c_str(), path.c_str()) != 0) return FileError("cannot rename to", path, errno);
  NoteUnmapped(data_);
  NoteMapped(path, data_, size_bytes_);
  path_ = path;
  return absl::OkStatus();
}

absl::Status MappedFile::Sync() const {
  if (fdatasync(fd_) == 0) return absl::OkStatus();
  return FileError("cannot sync", path_, errno);
}

void ExitOnBusErrors() {
  struct sigaction action = {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

void MappedFile::Redirty(uint64_t offset, uint64_t size_bytes) {
  const uint64_t end = offset + size_bytes;
  for (; offset < end; offset = (offset / kPageBytes + 1) * kPageBytes) {
    // Atomic, as others may store beside it.
    std::atomic_ref<uint8_t>(data_[offset]).fetch_or(0, std::memory_order_relaxed);
  }
}

absl::Status SyncDirectory(const std::string& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return FileError("cannot open directory", directory, errno);
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error == 0 ? absl::OkStatus() : FileError("cannot sync directory", directory, error);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      is_private_(other.is_private_),
      data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(is_private_, other.is_private_);
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    NoteUnmapped(data_);
    munmap(data_, size_bytes_);
  }
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<DirectoryLock> DirectoryLock::Acquire(const std::string& directory, bool synced) {
  std::error_code error;
  const bool is_new = std::filesystem::create_directories(directory, error);
  if (error) return FileError("cannot create directory", directory, error.value());
  if (synced && is_new) {
    const std::string parent = (std::filesystem::path(directory) / "..").string();
    if (absl::Status status = SyncDirectory(parent); !status.ok()) return status;
  }
  const std::string path = absl::StrCat(directory, "/LOCK");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return FileError("cannot create", path, errno);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error_number = errno;
    close(fd);
    if (error_number != EWOULDBLOCK) return FileError("cannot lock", path, error_number);
    return absl::FailedPreconditionError(
        absl::StrCat("data directory ", directory, " is in use by another replay server"));
  }
  return DirectoryLock(fd);
}

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

DirectoryLock& DirectoryLock::operator=(DirectoryLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace troupe
