#ifndef TROUPE_TESTS_FUZZ_FORGED_LOG_H_
#define TROUPE_TESTS_FUZZ_FORGED_LOG_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/layout.h"
#include "replay_server/row_log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_file.h"

// Small row logs in memory, and what an input makes of them.
namespace troupe {

inline constexpr uint64_t kStride = 32;
inline constexpr uint64_t kBlocks = 4;

struct Row {
  RowHeader header;
  uint64_t stream;
  uint64_t number;
};
static_assert(sizeof(Row) == kStride);

// The one row that is ever appended under this number, as it lies in this log.
Row RowOf(uint64_t stream, uint64_t number);
std::string BytesOf(const RowLog& log, uint64_t stream, uint64_t number);
// False: the log's rows are encoded in another way than ours.
bool Append(RowLog* log, uint64_t stream, uint64_t count);
std::unique_ptr<RowLog> MustRecover(const std::string& path);

using File = std::vector<uint8_t>;

// One log, at some moments of its life.
struct History {
  LogGeometry geometry;
  std::vector<File> ages;        // whole files, the newest last
  uint32_t row_counts[kBlocks];  // of the newest
};
// `encoded`: a column of its rows is compressed.
History MakeHistory(const std::string& path, absl::Span<const uint64_t> streams,
                    bool encoded = false);

// The input's bytes, one number after the other; zeros behind its end.
class Numbers final {
 public:
  explicit Numbers(absl::string_view bytes) : bytes_(bytes) {}

  bool empty() const { return bytes_.empty(); }
  uint64_t Take(size_t num_bytes) {
    uint64_t number = 0;
    const size_t n = std::min(num_bytes, bytes_.size());
    std::memcpy(&number, bytes_.data(), n);
    bytes_.remove_prefix(n);
    return number;
  }

 private:
  absl::string_view bytes_;
};

// A place in one of the file's parts, which are mostly padding: all that has a meaning is in reach.
uint64_t TakeOffset(Numbers* numbers, const LogGeometry& geometry);

// Any bytes anywhere, with checks made to fit where the numbers ask for it.
void Forge(const LogGeometry& geometry, Numbers* numbers, File* file);

}  // namespace troupe

#endif  // TROUPE_TESTS_FUZZ_FORGED_LOG_H_
