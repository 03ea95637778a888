// An LD_PRELOAD layer between a program and the disk below one directory, $TROUPE_FAULTS_DIR.
//
// A disk that loses power: with $TROUPE_FAULTS_IMAGE, a directory, nothing is synced.  Instead each
// fdatasync or fsync of a file keeps a copy of it there, named by its inode, and each fsync of the
// directory a list "names" of "inode name" lines: together, what a loss of power now would leave
// for certain.  Each is replaced in one step, so the process may be killed at any moment.
//
// A disk that fails: with $TROUPE_FAULTS_ERROR (EIO or ENOSPC) the calls numbered from
// $TROUPE_FAULTS_FIRST on, $TROUPE_FAULTS_COUNT of them, return that error.  Calls are counted from
// 1: open to create, write, fwrite, fflush, fdatasync, fsync, rename, posix_fallocate, ftruncate,
// mmap.
// With $TROUPE_FAULTS_LOG each is a line "number call path" in that file.
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

namespace {

std::string Setting(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

std::atomic<long> calls{0};

std::string PathOf(int fd) {
  char path[PATH_MAX];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = readlink(link.c_str(), path, sizeof(path));
  return size < 0 ? "" : std::string(path, size);
}

bool IsOurs(const std::string& path) {
  static const std::string directory = Setting("TROUPE_FAULTS_DIR");
  return !directory.empty() && path.compare(0, directory.size(), directory) == 0 &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

void Log(long number, const char* call, const std::string& path) {
  static const std::string log = Setting("TROUPE_FAULTS_LOG");
  if (log.empty()) return;
  static const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const std::string line = std::to_string(number) + " " + call + " " + path + "\n";
  static const auto next = Next<ssize_t (*)(int, const void*, size_t)>("write");
  next(fd, line.data(), line.size());
}

// 0, or the error that this call is to fail with.
int Fault(const char* call, const std::string& path) {
  static const std::string error = Setting("TROUPE_FAULTS_ERROR");
  static const long first = atol(Setting("TROUPE_FAULTS_FIRST").c_str());
  static const long count = atol(Setting("TROUPE_FAULTS_COUNT").c_str());
  if (!IsOurs(path)) return 0;
  const long number = ++calls;
  const bool fails = !error.empty() && number >= first && number < first + count;
  Log(number, call, fails ? path + " " + error : path);
  if (!fails) return 0;
  return error == "ENOSPC" ? ENOSPC : EIO;
}

bool WriteWhole(const std::string& path, const std::string& bytes) {
  static const auto next = Next<ssize_t (*)(int, const void*, size_t)>("write");
  const std::string unfinished = path + ".tmp";
  const int fd = open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t n = next(fd, bytes.data() + written, bytes.size() - written);
    if (n <= 0) break;
    written += n;
  }
  close(fd);
  static const auto next_rename = Next<int (*)(const char*, const char*)>("rename");
  return written == bytes.size() && next_rename(unfinished.c_str(), path.c_str()) == 0;
}

std::string NamesIn(const std::string& directory) {
  std::string names;
  DIR* listing = opendir(directory.c_str());
  while (dirent* entry = readdir(listing)) {
    if (entry->d_type == DT_REG) {
      names += std::to_string(entry->d_ino) + " " + entry->d_name + "\n";
    }
  }
  closedir(listing);
  return names;
}

// Keeps what `fd` is now.
bool KeepImage(int fd, const std::string& images, const std::string& path) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  struct stat info;
  if (fstat(fd, &info) != 0) return false;
  if (S_ISDIR(info.st_mode)) return WriteWhole(images + "/names", NamesIn(path));
  std::string bytes(info.st_size, '\0');
  const int reading = open(path.c_str(), O_RDONLY | O_CLOEXEC);  // `fd` may be for writing alone
  const ssize_t size = pread(reading, bytes.data(), bytes.size(), 0);
  close(reading);
  if (size != info.st_size) return false;
  return WriteWhole(images + "/" + std::to_string(info.st_ino), bytes);
}

int Sync(int fd, const char* call) {
  static const std::string images = Setting("TROUPE_FAULTS_IMAGE");
  const std::string path = PathOf(fd);
  if (const int error = Fault(call, path); error != 0) {
    errno = error;
    return -1;
  }
  if (images.empty() || !IsOurs(path)) return Next<int (*)(int)>(call)(fd);
  if (KeepImage(fd, images, path)) return 0;
  errno = EIO;
  return -1;
}

}  // namespace

extern "C" {

int fdatasync(int fd) { return Sync(fd, "fdatasync"); }
int fsync(int fd) { return Sync(fd, "fsync"); }

int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
    if (const int error = Fault("open", path); error != 0) {
      errno = error;
      return -1;
    }
  }
  static const auto next = Next<int (*)(const char*, int, ...)>("open");
  return next(path, flags, mode);
}

FILE* fopen(const char* path, const char* mode) {
  if (strchr(mode, 'w') != nullptr) {
    if (const int error = Fault("fopen", path); error != 0) {
      errno = error;
      return nullptr;
    }
  }
  return Next<FILE* (*)(const char*, const char*)>("fopen")(path, mode);
}

size_t fwrite(const void* bytes, size_t size, size_t count, FILE* file) {
  static const auto next = Next<size_t (*)(const void*, size_t, size_t, FILE*)>("fwrite");
  if (const int error = Fault("fwrite", PathOf(fileno(file))); error != 0) {
    errno = error;
    return 0;
  }
  return next(bytes, size, count, file);
}

int fflush(FILE* file) {
  if (file != nullptr) {
    if (const int error = Fault("fflush", PathOf(fileno(file))); error != 0) {
      errno = error;
      return EOF;
    }
  }
  return Next<int (*)(FILE*)>("fflush")(file);
}

ssize_t write(int fd, const void* bytes, size_t size) {
  static const auto next = Next<ssize_t (*)(int, const void*, size_t)>("write");
  if (const int error = Fault("write", PathOf(fd)); error != 0) {
    errno = error;
    return -1;
  }
  return next(fd, bytes, size);
}

int rename(const char* from, const char* to) {
  if (const int error = Fault("rename", to); error != 0) {
    errno = error;
    return -1;
  }
  return Next<int (*)(const char*, const char*)>("rename")(from, to);
}

int posix_fallocate(int fd, off_t offset, off_t size) {
  if (const int error = Fault("posix_fallocate", PathOf(fd)); error != 0) return error;
  return Next<int (*)(int, off_t, off_t)>("posix_fallocate")(fd, offset, size);
}

int ftruncate(int fd, off_t size) {
  if (const int error = Fault("ftruncate", PathOf(fd)); error != 0) {
    errno = error;
    return -1;
  }
  return Next<int (*)(int, off_t)>("ftruncate")(fd, size);
}

void* mmap(void* address, size_t size, int protection, int flags, int fd, off_t offset) {
  if (fd >= 0) {
    if (const int error = Fault("mmap", PathOf(fd)); error != 0) {
      errno = error;
      return MAP_FAILED;
    }
  }
  static const auto next = Next<void* (*)(void*, size_t, int, int, int, off_t)>("mmap");
  return next(address, size, protection, flags, fd, offset);
}

}  // extern "C"
