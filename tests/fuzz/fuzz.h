#ifndef TROUPE_TESTS_FUZZ_FUZZ_H_
#define TROUPE_TESTS_FUZZ_FUZZ_H_

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace troupe {

inline std::string InWords(const absl::Status& status) { return status.ToString(); }
template <typename T>
const T& InWords(const T& text) {
  return text;
}

// Ends the process, as a find, unless `condition`: what must hold whatever the bytes are.  The
// rest, statuses and what StrCat takes, say what does not hold.
template <typename... Words>
void Require(bool condition, const Words&... words) {
  if (condition) return;
  std::fprintf(stderr, "NOT SO: %s\n", absl::StrCat(InWords(words)...).c_str());
  std::abort();
}

inline absl::string_view AsText(const uint8_t* data, size_t size) {
  return absl::string_view(reinterpret_cast<const char*>(data), size);
}

// The input's parts between zero bytes, at most `max_parts`: the last one keeps its zero bytes.
inline std::vector<std::string> Parts(absl::string_view input, size_t max_parts) {
  std::vector<std::string> parts;
  while (parts.size() + 1 < max_parts) {
    const size_t end = input.find('\0');
    if (end == input.npos) break;
    parts.emplace_back(input.substr(0, end));
    input.remove_prefix(end + 1);
  }
  parts.emplace_back(input);
  return parts;
}

// The message at the front of `input`: two bytes of its length, then as much of it as there is.
// REQUIRES: input->size() >= 2.
inline absl::string_view TakeMessage(absl::string_view* input) {
  const size_t size = static_cast<uint8_t>((*input)[0]) + 256 * static_cast<uint8_t>((*input)[1]);
  const absl::string_view message = input->substr(2, size);
  input->remove_prefix(2 + message.size());
  return message;
}

// The safetensors image that an input stands for: after an 'R' the image itself; otherwise the
// JSON header up to a zero byte and then the data, with the header's size made to fit, so that a
// change in the text is not lost on the first check.
inline std::string SafetensorsImage(absl::string_view input) {
  if (!input.empty() && input[0] == 'R') return std::string(input.substr(1));
  const std::vector<std::string> parts = Parts(input, 2);
  const uint64_t header_bytes = parts[0].size();
  std::string image(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
  image += parts[0];
  if (parts.size() > 1) image += parts[1];
  return image;
}

// A path of this process's own in the folder for temporary files, which tests/fuzz/run_target puts
// into memory and removes.
inline std::string OwnPath(const std::string& name) {
  return (std::filesystem::temp_directory_path() / name).string();
}

// Without truncating the file first: memory for a file is what costs most here.
inline void WriteWhole(const std::string& path, absl::string_view contents) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  const auto size = static_cast<ssize_t>(contents.size());
  Require(fd >= 0 && write(fd, contents.data(), contents.size()) == size &&
              ftruncate(fd, size) == 0 && close(fd) == 0,
          "cannot write ", path);
}

}  // namespace troupe

#endif  // TROUPE_TESTS_FUZZ_FUZZ_H_
