#ifndef TROUPE_COMMON_ROW_CODEC_H_
#define TROUPE_COMMON_ROW_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/layout.h"
#include "common/row_sizes.h"
#include "proto/config.pb.h"

namespace troupe {

// Marks the columns of `layout` that `settings` name.  INVALID_ARGUMENT: one that is not there,
// with those that are, or one that is named twice.
absl::Status SetCompression(absl::Span<const proto::ColumnCompression> settings,
                            proto::Layout* layout);

// Makes packed rows encoded ones, and the other way round (common/row_sizes.h says how they lie).
// Each row stands for itself, and the same row always becomes the same bytes.  Of a layout without
// compressed columns both are the same.  Immutable, so thread-safe; what LZ4 and Zstandard work in
// is a thread's own.
class RowCodec final {
 public:
  // `settings` give levels; without one it is 1.
  explicit RowCodec(const Layout& layout, absl::Span<const proto::ColumnCompression> settings = {});

  const RowSizes& sizes() const { return sizes_; }

  // Appends one row to `encoded`.  REQUIRES: `packed` is one row.
  void Encode(absl::string_view packed, std::string* encoded) const;
  // Writes `num_rows` packed rows to `packed`, which has room for them.  INVALID_ARGUMENT:
  // `encoded` is not so many rows; DATA_LOSS: bytes of a column do not decompress to its size. Then
  // what was written is undefined.
  absl::Status Decode(absl::string_view encoded, uint64_t num_rows, uint8_t* packed) const;
  // The same for as many rows as there are.
  absl::Status DecodeAll(absl::string_view encoded, std::string* packed) const;

 private:
  // Bytes of a packed row.
  struct Range {
    size_t offset = 0;
    size_t size = 0;
  };
  struct Compressed {
    std::string name;
    Range place;
    proto::Compression codec = proto::COMPRESSION_NONE;
    int level = 1;
  };

  absl::Status DecodeRow(absl::string_view encoded, uint8_t* packed) const;

  const RowSizes sizes_;
  std::vector<Range> plain_;            // what is copied, in order
  std::vector<Range> gaps_;             // between columns: zeros
  std::vector<Compressed> compressed_;  // in order
};

}  // namespace troupe

#endif  // TROUPE_COMMON_ROW_CODEC_H_
