#include "common/json_lines.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace troupe {
namespace {

// One write, so that a kill does not leave half of it; what a full disk leaves is cut off again.
// Returns 0 or the error number.
int AppendToEnd(int fd, const std::string& text) {
  const off_t end = lseek(fd, 0, SEEK_END);
  const ssize_t written = write(fd, text.data(), text.size());
  if (written == static_cast<ssize_t>(text.size())) return 0;
  const int error = written < 0 ? errno : ENOSPC;
  if (written > 0 && ftruncate(fd, end) != 0) return errno;
  return error;
}

}  // namespace

absl::Status AppendJsonLine(const std::string& path, const nlohmann::ordered_json& line) {
  const int fd = open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  const std::string text = absl::StrCat(line.dump(), "\n");
  const int error = AppendToEnd(fd, text);
  close(fd);
  if (error == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(error,
                             absl::StrCat("cannot append ", text.size(), " bytes to ", path));
}

}  // namespace troupe
