#ifndef TROUPE_TESTS_FUZZ_FUZZ_H_
#define TROUPE_TESTS_FUZZ_FUZZ_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace troupe {

// Ends the process, as a find, unless `condition`: what must hold whatever the bytes are.
inline void Require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "NOT SO: %s\n", what.c_str());
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

inline void WriteWhole(const std::string& path, absl::string_view contents) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  Require(file != nullptr, absl::StrCat("cannot write ", path));
  Require(std::fwrite(contents.data(), 1, contents.size(), file) == contents.size() &&
              std::fclose(file) == 0,
          absl::StrCat("cannot write ", path));
}

}  // namespace troupe

#endif  // TROUPE_TESTS_FUZZ_FUZZ_H_
