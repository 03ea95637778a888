#include "replay_server/replace_file.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "replay_server/mapped_file.h"

namespace troupe {

absl::Status ReplaceFile(const std::string& path, absl::Span<const absl::string_view> parts,
                         bool synced) {
  const std::string unfinished = absl::StrCat(path, ".tmp");
  FILE* file = fopen(unfinished.c_str(), "wbe");
  if (file == nullptr) return FileError("cannot create", unfinished, errno);
  bool written = true;
  for (const absl::string_view part : parts) {
    written = written && fwrite(part.data(), 1, part.size(), file) == part.size();
  }
  const bool flushed = written && fflush(file) == 0 && (!synced || fdatasync(fileno(file)) == 0);
  const int write_error = errno;
  const bool closed = fclose(file) == 0;
  if (!flushed || !closed) {
    const absl::Status status =
        FileError("cannot write", unfinished, flushed ? errno : write_error);
    unlink(unfinished.c_str());
    return status;
  }
  if (rename(unfinished.c_str(), path.c_str()) != 0) {
    const int rename_error = errno;
    unlink(unfinished.c_str());
    return FileError("cannot rename to", path, rename_error);
  }
  if (!synced) return absl::OkStatus();
  return SyncDirectory(std::filesystem::absolute(path).parent_path().string());
}

}  // namespace troupe
