#ifndef TROUPE_TESTS_UNIT_COMMON_FRAME_ROWS_H_
#define TROUPE_TESTS_UNIT_COMMON_FRAME_ROWS_H_

#include <cstdint>
#include <cstring>
#include <random>
#include <string>

#include "common/layout.h"

namespace troupe::testing {

inline constexpr int64_t kFrameBytes = 40 * 40;

// Rows that see: a picture in the middle, and gaps that alignment makes.
inline proto::Layout FrameLayoutProto(proto::Compression compression) {
  proto::Layout layout;
  const auto add = [&layout](const std::string& name, proto::DType dtype) {
    proto::Column* column = layout.add_columns();
    column->set_name(name);
    column->set_dtype(dtype);
    return column;
  };
  add("small", proto::UINT8);
  proto::Column* const pixels = add("observation.pixels", proto::UINT8);
  for (const uint32_t axis : {40, 40, 1}) pixels->add_shape(axis);
  pixels->set_compression(compression);
  add("stream", proto::INT64);
  add("row", proto::INT64);
  add("reward", proto::FLOAT32);
  return layout;
}
inline Layout FrameLayout(proto::Compression compression) {
  return *Layout::FromProto(FrameLayoutProto(compression));
}

// A packed row that is a function of who it is.  Every 7th picture is noise, which no codec makes
// smaller; the others are squares on black.
inline std::string FrameRow(uint64_t stream, uint64_t row, bool is_final = false) {
  static const Layout layout = FrameLayout(proto::COMPRESSION_NONE);
  std::string packed(layout.stride_bytes(), '\0');
  RowHeader header;
  header.flags = is_final ? kTerminated : 0u;
  WriteRowHeader(header, packed.data());
  const auto place = [&](absl::string_view name) {
    return packed.data() + layout.Find(name)->offset_bytes;
  };
  *place("small") = static_cast<char>(row);
  std::memcpy(place("stream"), &stream, sizeof(stream));
  std::memcpy(place("row"), &row, sizeof(row));
  const auto reward = static_cast<float>(row);
  std::memcpy(place("reward"), &reward, sizeof(reward));
  char* const pixels = place("observation.pixels");
  std::mt19937_64 random(stream * 1000003 + row);
  if (row % 7 == 6) {
    for (int64_t i = 0; i < kFrameBytes; ++i) pixels[i] = static_cast<char>(random());
    return packed;
  }
  for (int square = 0; square < 4; ++square) {
    const uint64_t left = random() % 32;
    const uint64_t top = random() % 32;
    for (uint64_t y = top; y < top + 8; ++y) {
      std::memset(pixels + y * 40 + left, static_cast<int>(random() % 256), 8);
    }
  }
  return packed;
}

}  // namespace troupe::testing

#endif  // TROUPE_TESTS_UNIT_COMMON_FRAME_ROWS_H_
