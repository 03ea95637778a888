#include "common/row_sizes.h"

#include <cstring>

namespace troupe {
namespace {

constexpr uint64_t kMultiple = 8;

uint64_t RoundUp(uint64_t bytes) { return (bytes + kMultiple - 1) / kMultiple * kMultiple; }

}  // namespace

RowSizes::RowSizes(const Layout& layout)
    : most_(layout.stride_bytes()), packed_(layout.stride_bytes()) {
  if (!layout.has_compressed_columns()) return;
  uint64_t compressed_bytes = 0;
  sizes_offset_ = sizeof(RowHeader);
  for (const ColumnLayout& column : layout.columns()) {
    if (column.compression == proto::COMPRESSION_NONE) {
      sizes_offset_ += column.size_bytes;
    } else {
      compressed_.push_back(static_cast<uint32_t>(column.size_bytes));
      compressed_bytes += column.size_bytes;
    }
  }
  most_ = RoundUp(bytes_offset() + compressed_bytes);
}

size_t RowSizes::FirstEncoded(absl::string_view rows) const {
  if (rows.size() < bytes_offset()) return 0;
  uint64_t size = bytes_offset();
  const char* at = rows.data() + sizes_offset_;
  for (const uint32_t packed : compressed_) {
    uint32_t bytes;
    std::memcpy(&bytes, at, sizeof(bytes));
    at += sizeof(bytes);
    if (bytes == 0 || bytes > packed) return 0;
    size += bytes;
  }
  size = RoundUp(size);
  return size <= rows.size() ? size : 0;
}

std::optional<size_t> RowSizes::FirstRows(absl::string_view rows, uint64_t count) const {
  if (all_alike()) {
    if (count > rows.size() / most_) return std::nullopt;
    return count * most_;
  }
  size_t size = 0;
  for (; count > 0; --count) {
    const size_t row = First(rows.substr(size));
    if (row == 0) return std::nullopt;
    size += row;
  }
  return size;
}

std::optional<uint64_t> RowSizes::Count(absl::string_view rows) const {
  if (all_alike()) {
    if (rows.size() % most_ != 0) return std::nullopt;
    return rows.size() / most_;
  }
  uint64_t count = 0;
  for (; !rows.empty(); ++count) {
    const size_t row = First(rows);
    if (row == 0) return std::nullopt;
    rows.remove_prefix(row);
  }
  return count;
}

}  // namespace troupe
