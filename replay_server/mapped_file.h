#ifndef TROUPE_REPLAY_SERVER_MAPPED_FILE_H_
#define TROUPE_REPLAY_SERVER_MAPPED_FILE_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace troupe {

// A file mapped read-write and shared: what was stored in it survives the death of the process.
// A byte is stored to only once it is allocated on the file system, so that this never raises
// SIGBUS for want of space.  Moving keeps data() where it is.
class MappedFile final {
 public:
  // Makes `path` anew with `size_bytes` zeros, all of it allocated.  RESOURCE_EXHAUSTED names the
  // path, the bytes needed and the bytes free; nothing is left behind then.
  static absl::StatusOr<MappedFile> Create(const std::string& path, uint64_t size_bytes) {
    return CreateSparse(path, size_bytes, size_bytes);
  }
  // The same, but only the first `allocated_bytes` are.
  static absl::StatusOr<MappedFile> CreateSparse(const std::string& path, uint64_t size_bytes,
                                                 uint64_t allocated_bytes);
  // Maps the whole of an existing file, of which nothing need be allocated.  NOT_FOUND: there is
  // none.
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  // The same, but what is stored in it is this object's alone: the file is only read.
  static absl::StatusOr<MappedFile> OpenPrivate(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  // Makes the file larger, by zeros, and allocates its first `allocated_bytes`; moves data().
  // RESOURCE_EXHAUSTED as Create().  After OpenPrivate(), what is mapped grows and the file does
  // not.
  absl::Status Grow(uint64_t size_bytes, uint64_t allocated_bytes);
  // Allocates these bytes, as far as they are not; what is stored there stays.  RESOURCE_EXHAUSTED
  // as Create().  After OpenPrivate() there is nothing to do.
  absl::Status Allocate(uint64_t offset, uint64_t size_bytes);
  // Gives whole pages within these bytes, which nobody uses, back to the file system, where it
  // takes them.  True: they are a hole now.
  bool GiveBack(uint64_t offset, uint64_t size_bytes);
  // Gives the file another name.
  absl::Status Rename(const std::string& path);
  // Returns once all that was stored before is on the disk, by fdatasync.  After an error the
  // kernel may have dropped some of it, and takes it for written.
  absl::Status Sync() const;
  // Makes the kernel take these pages for changed, so that Sync() writes them once more.  REQUIRES:
  // they are allocated.
  void Redirty(uint64_t offset, uint64_t size_bytes);

  uint8_t* data() const { return data_; }
  uint64_t size_bytes() const { return size_bytes_; }

 private:
  MappedFile(std::string path, int fd, uint8_t* data, uint64_t size_bytes, bool is_private = false)
      : path_(std::move(path)),
        fd_(fd),
        is_private_(is_private),
        data_(data),
        size_bytes_(size_bytes) {}
  absl::StatusOr<uint8_t*> MapLarger(uint64_t size_bytes, uint64_t allocated_bytes);

  std::string path_;
  int fd_ = -1;
  bool is_private_ = false;
  uint8_t* data_ = nullptr;
  uint64_t size_bytes_ = 0;
};

// From now on a page of a MappedFile that cannot be read ends the process with exit code 1 and a
// message that names the file.  Once a process.
void ExitOnBusErrors();

// Holds a directory for one process until destruction, made if it is not there.
class DirectoryLock final {
 public:
  // FAILED_PRECONDITION: another process holds it.
  // `synced`: the directory, if it is new, outlives the loss of power.
  static absl::StatusOr<DirectoryLock> Acquire(const std::string& directory, bool synced = false);

  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&& other) noexcept;
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}

  int fd_ = -1;
};

// Returns once the names in `directory` are on the disk.
absl::Status SyncDirectory(const std::string& directory);

// "<what> <path>: <text of errno>" with the code that fits the error number.
absl::Status FileError(const std::string& what, const std::string& path, int error_number);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_MAPPED_FILE_H_
