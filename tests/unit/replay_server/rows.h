#ifndef TROUPE_TESTS_UNIT_REPLAY_SERVER_ROWS_H_
#define TROUPE_TESTS_UNIT_REPLAY_SERVER_ROWS_H_

#include <stdlib.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <set>
#include <string>

#include "common/layout.h"

namespace troupe {

// A directory that is gone when the test is over.
class TempDir final {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "troupe_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }

  std::string File(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Rows that say who they are: columns "stream" and "row".
inline proto::Layout TestLayoutProto() {
  proto::Layout layout;
  for (const char* name : {"stream", "row"}) {
    proto::Column* column = layout.add_columns();
    column->set_name(name);
    column->set_dtype(proto::INT64);
  }
  return layout;
}
inline Layout TestLayout() { return *Layout::FromProto(TestLayoutProto()); }
inline constexpr uint64_t kTestStride = 32;

struct TestRow {
  RowHeader header;
  uint64_t stream;
  uint64_t row;
};
static_assert(sizeof(TestRow) == kTestStride);

// `count` rows of a stream from `first` on; those numbered in `finals` are final.
inline std::string Rows(uint64_t stream, uint64_t first, uint64_t count,
                        const std::set<uint64_t>& finals = {}, uint64_t policy_version = 0) {
  std::string bytes;
  for (uint64_t row = first; row < first + count; ++row) {
    TestRow packed = {{policy_version, finals.contains(row) ? kTerminated : 0u, 0}, stream, row};
    bytes.append(reinterpret_cast<const char*>(&packed), sizeof(packed));
  }
  return bytes;
}

inline TestRow RowAt(const void* bytes, uint64_t index) {
  TestRow row;
  std::memcpy(&row, static_cast<const char*>(bytes) + index * kTestStride, kTestStride);
  return row;
}

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_REPLAY_SERVER_ROWS_H_
