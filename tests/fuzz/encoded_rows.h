#ifndef TROUPE_TESTS_FUZZ_ENCODED_ROWS_H_
#define TROUPE_TESTS_FUZZ_ENCODED_ROWS_H_

#include <iterator>
#include <utility>

#include "common/layout.h"
#include "proto/config.pb.h"
#include "proto/experience.pb.h"

namespace troupe {

inline void AddColumn(const char* name, proto::DType dtype, uint32_t size,
                      proto::Compression compression, proto::Layout* layout) {
  proto::Column* column = layout->add_columns();
  column->set_name(name);
  column->set_dtype(dtype);
  if (size > 0) column->add_shape(size);
  column->set_compression(compression);
}

// Rows of 32 to 40 bytes, of table_fuzz.
inline proto::Layout EncodedLayout() {
  proto::Layout layout;
  AddColumn("observation", proto::UINT8, 16, proto::LZ4, &layout);
  return layout;
}

// Codecs of the columns "pixels" and "other" of row_codec_fuzz; its inputs begin with a number of
// one of these.
inline constexpr std::pair<proto::Compression, proto::Compression> kCodecs[] = {
    {proto::LZ4, proto::COMPRESSION_NONE},
    {proto::ZSTD, proto::COMPRESSION_NONE},
    {proto::LZ4, proto::ZSTD},
    {proto::COMPRESSION_NONE, proto::COMPRESSION_NONE}};

inline proto::Layout LayoutOfCodecs(size_t number) {
  const auto& [pixels, other] = kCodecs[number % std::size(kCodecs)];
  proto::Layout layout;
  AddColumn("small", proto::UINT8, 0, proto::COMPRESSION_NONE, &layout);
  AddColumn("pixels", proto::UINT8, 200, pixels, &layout);
  AddColumn("number", proto::INT64, 0, proto::COMPRESSION_NONE, &layout);
  AddColumn("other", proto::FLOAT32, 30, other, &layout);
  return layout;
}

}  // namespace troupe

#endif  // TROUPE_TESTS_FUZZ_ENCODED_ROWS_H_
