#include "common/row_codec.h"

#include <lz4.h>
#include <zstd.h>

#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace troupe {
namespace {

template <typename Context, size_t (*kFree)(Context*)>
struct Free {
  void operator()(Context* context) const { kFree(context); }
};

ZSTD_CCtx* CompressionContext() {
  static thread_local const std::unique_ptr<ZSTD_CCtx, Free<ZSTD_CCtx, ZSTD_freeCCtx>> context(
      ZSTD_createCCtx());
  return context.get();
}

ZSTD_DCtx* DecompressionContext() {
  static thread_local const std::unique_ptr<ZSTD_DCtx, Free<ZSTD_DCtx, ZSTD_freeDCtx>> context(
      ZSTD_createDCtx());
  return context.get();
}

// Writes at most from_bytes - 1 bytes; 0: they do not suffice.
size_t Compress(proto::Compression codec, int level, const char* from, size_t from_bytes,
                char* to) {
  if (codec == proto::LZ4) {
    return LZ4_compress_default(from, to, static_cast<int>(from_bytes),
                                static_cast<int>(from_bytes) - 1);
  }
  const size_t written =
      ZSTD_compressCCtx(CompressionContext(), to, from_bytes - 1, from, from_bytes, level);
  return ZSTD_isError(written) ? 0 : written;
}

// Are these bytes what compression made of `to_bytes` bytes?  Then they are written.
bool Decompress(proto::Compression codec, absl::string_view from, uint8_t* to, size_t to_bytes) {
  if (codec == proto::LZ4) {
    const int written =
        LZ4_decompress_safe(from.data(), reinterpret_cast<char*>(to), static_cast<int>(from.size()),
                            static_cast<int>(to_bytes));
    return written >= 0 && static_cast<size_t>(written) == to_bytes;
  }
  return ZSTD_decompressDCtx(DecompressionContext(), to, to_bytes, from.data(), from.size()) ==
         to_bytes;
}

int LevelOf(const ColumnLayout& column, absl::Span<const proto::ColumnCompression> settings) {
  for (const proto::ColumnCompression& setting : settings) {
    if (setting.column() == column.name) return setting.level();
  }
  return 1;
}

}  // namespace

absl::Status SetCompression(absl::Span<const proto::ColumnCompression> settings,
                            proto::Layout* layout) {
  for (const proto::ColumnCompression& setting : settings) {
    proto::Column* found = nullptr;
    for (proto::Column& column : *layout->mutable_columns()) {
      if (column.name() == setting.column()) found = &column;
    }
    if (found == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "actor.compression names column '", setting.column(), "'; there are: ",
          absl::StrJoin(layout->columns(), ", ", [](std::string* out, const proto::Column& column) {
            absl::StrAppend(out, column.name());
          })));
    }
    if (found->compression() != proto::COMPRESSION_NONE) {
      return absl::InvalidArgumentError(
          absl::StrCat("actor.compression names column '", setting.column(), "' twice"));
    }
    found->set_compression(setting.codec());
  }
  return absl::OkStatus();
}

RowCodec::RowCodec(const Layout& layout, absl::Span<const proto::ColumnCompression> settings)
    : sizes_(layout) {
  plain_.push_back({0, sizeof(RowHeader)});
  size_t end = sizeof(RowHeader);
  for (const ColumnLayout& column : layout.columns()) {
    const Range place = {static_cast<size_t>(column.offset_bytes),
                         static_cast<size_t>(column.size_bytes)};
    if (place.offset > end) gaps_.push_back({end, place.offset - end});
    end = place.offset + place.size;
    if (column.compression != proto::COMPRESSION_NONE) {
      compressed_.push_back({column.name, place, column.compression, LevelOf(column, settings)});
    } else if (plain_.back().offset + plain_.back().size == place.offset) {
      plain_.back().size += place.size;
    } else {
      plain_.push_back(place);
    }
  }
  const auto stride = static_cast<size_t>(layout.stride_bytes());
  if (stride > end) gaps_.push_back({end, stride - end});
}

void RowCodec::Encode(absl::string_view packed, std::string* encoded) const {
  if (sizes_.all_alike()) {
    encoded->append(packed.data(), packed.size());
    return;
  }
  const size_t begin = encoded->size();
  encoded->resize(begin + sizes_.most());
  char* const row = encoded->data() + begin;
  char* to = row;
  for (const Range& range : plain_) {
    std::memcpy(to, packed.data() + range.offset, range.size);
    to += range.size;
  }
  char* size_at = to;
  to = row + sizes_.bytes_offset();
  for (const Compressed& column : compressed_) {
    const Range& place = column.place;
    const char* const from = packed.data() + place.offset;
    size_t size = Compress(column.codec, column.level, from, place.size, to);
    if (size == 0) {
      size = place.size;
      std::memcpy(to, from, size);
    }
    const auto size32 = static_cast<uint32_t>(size);
    std::memcpy(size_at, &size32, sizeof(size32));
    size_at += sizeof(size32);
    to += size;
  }
  for (; (to - row) % 8 != 0; ++to) *to = 0;
  encoded->resize(to - encoded->data());
}

absl::Status RowCodec::DecodeRow(absl::string_view encoded, uint8_t* packed) const {
  const char* from = encoded.data();
  for (const Range& range : plain_) {
    std::memcpy(packed + range.offset, from, range.size);
    from += range.size;
  }
  for (const Range& gap : gaps_) std::memset(packed + gap.offset, 0, gap.size);
  const char* size_at = from;
  from = encoded.data() + sizes_.bytes_offset();
  for (const Compressed& column : compressed_) {
    const Range& place = column.place;
    uint32_t size;
    std::memcpy(&size, size_at, sizeof(size));
    size_at += sizeof(size);
    if (size == place.size) {
      std::memcpy(packed + place.offset, from, size);
    } else if (!Decompress(column.codec, {from, size}, packed + place.offset, place.size)) {
      return absl::DataLossError(absl::StrCat(size, " bytes of column '", column.name, "' are not ",
                                              place.size, " bytes compressed with ",
                                              proto::Compression_Name(column.codec)));
    }
    from += size;
  }
  return absl::OkStatus();
}

absl::Status RowCodec::Decode(absl::string_view encoded, uint64_t num_rows, uint8_t* packed) const {
  const size_t all = encoded.size();
  if (sizes_.all_alike() && num_rows == all / sizes_.most() && all % sizes_.most() == 0) {
    if (all > 0) std::memcpy(packed, encoded.data(), all);
    return absl::OkStatus();
  }
  for (uint64_t row = 0; row < num_rows; ++row, packed += sizes_.packed()) {
    const size_t size = sizes_.all_alike() ? 0 : sizes_.First(encoded);
    if (size == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("row ", row, " of ", num_rows, " in ", all, " bytes is none"));
    }
    if (absl::Status status = DecodeRow(encoded.substr(0, size), packed); !status.ok()) {
      return status;
    }
    encoded.remove_prefix(size);
  }
  if (encoded.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(encoded.size(), " bytes too many for ", num_rows, " rows"));
}

absl::Status RowCodec::DecodeAll(absl::string_view encoded, std::string* packed) const {
  const std::optional<uint64_t> rows = sizes_.Count(encoded);
  if (!rows.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(encoded.size(), " bytes are no whole number of rows"));
  }
  packed->resize(*rows * sizes_.packed());
  return Decode(encoded, *rows, reinterpret_cast<uint8_t*>(packed->data()));
}

}  // namespace troupe
