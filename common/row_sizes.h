#ifndef TROUPE_COMMON_ROW_SIZES_H_
#define TROUPE_COMMON_ROW_SIZES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/layout.h"

namespace troupe {

// Where rows end that lie one behind the other as they travel and are stored.
//
// Rows of a layout without compressed columns are packed, all of one stride.  With compressed
// columns they are encoded, each of its own size, a multiple of 8 bytes:
//   the row's header
//   the columns that are not compressed, one behind the other, without gaps
//   uint32 for each compressed column: the size of its bytes, 1 to its size in a packed row
//   the bytes of the compressed columns; as they are in a packed row where they are as many
//   zeros
// Nothing here reads compressed bytes, which is for common/row_codec.h.  Immutable, so thread-safe;
// cheap to copy where all rows are alike.
class RowSizes final {
 public:
  explicit RowSizes(const Layout& layout);
  // Of packed rows of `stride_bytes`.
  explicit RowSizes(uint64_t stride_bytes) : most_(stride_bytes), packed_(stride_bytes) {}

  // Are all rows packed, and so of size most()?
  bool all_alike() const { return compressed_.empty(); }
  // Of the largest row. Unit: bytes.
  uint64_t most() const { return most_; }
  // Of a packed row. Unit: bytes.
  uint64_t packed() const { return packed_; }

  // Size of the first row of `rows`; 0: it is malformed, or not all there. Unit: bytes.
  size_t First(absl::string_view rows) const {
    if (all_alike()) return rows.size() >= most_ ? most_ : 0;
    return FirstEncoded(rows);
  }
  // Size of the first `count` rows; nothing: they are not all there. Unit: bytes.
  std::optional<size_t> FirstRows(absl::string_view rows, uint64_t count) const;
  // How many rows these are; nothing: not a whole number of rows.
  std::optional<uint64_t> Count(absl::string_view rows) const;

  // Of encoded rows: where the sizes of the compressed columns lie, and the bytes begin.
  size_t sizes_offset() const { return sizes_offset_; }
  size_t bytes_offset() const { return sizes_offset_ + compressed_.size() * sizeof(uint32_t); }

 private:
  size_t FirstEncoded(absl::string_view rows) const;

  uint64_t most_ = 0;
  uint64_t packed_ = 0;
  size_t sizes_offset_ = 0;
  std::vector<uint32_t> compressed_;  // sizes of the compressed columns in a packed row
};

}  // namespace troupe

#endif  // TROUPE_COMMON_ROW_SIZES_H_
