// Encoded rows as shards hand them on; the first byte of the input chooses the codecs.  Sizes never
// lie behind the end; what decodes is whole rows, which come back when they are encoded; and any
// packed row comes back.
#include <algorithm>
#include <optional>

#include "common/row_codec.h"
#include "tests/fuzz/encoded_rows.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

RowCodec CodecOf(size_t number) {
  return RowCodec(Layout::FromProto(LayoutOfCodecs(number)).value());
}

void CheckSizes(const RowSizes& sizes, absl::string_view rows) {
  uint64_t count = 0;
  size_t end = 0;
  while (const size_t size = sizes.First(rows.substr(end))) {
    Require(size <= rows.size() - end && size <= sizes.most() && size % 8 == 0, "a size of ", size);
    end += size;
    ++count;
    Require(sizes.FirstRows(rows, count) == end, "the first ", count, " rows have another size");
  }
  Require(sizes.Count(rows).has_value() == (end == rows.size()), "a whole number of rows, or not");
  Require(end < rows.size() || sizes.Count(rows) == count, "another number of rows");
}

void CheckDecoding(const RowCodec& codec, absl::string_view rows) {
  // Copies that end where the bytes do, for AddressSanitizer.
  const std::vector<char> encoded(rows.begin(), rows.end());
  std::string packed;
  const absl::Status status = codec.DecodeAll({encoded.data(), encoded.size()}, &packed);
  const std::optional<uint64_t> count = codec.sizes().Count(rows);
  if (!status.ok()) {
    Require(count.has_value() ? absl::IsDataLoss(status) : absl::IsInvalidArgument(status), status);
    return;
  }
  const uint64_t row_bytes = codec.sizes().packed();
  Require(packed.size() == *count * row_bytes, "decoded to ", packed.size(), " bytes");
  std::string again;
  for (size_t at = 0; at < packed.size(); at += row_bytes) {
    codec.Encode(absl::string_view(packed).substr(at, row_bytes), &again);
  }
  std::vector<uint8_t> decoded(packed.size());
  Require(codec.Decode(again, *count, decoded.data()).ok(), "what was encoded does not decode");
  Require(std::equal(decoded.begin(), decoded.end(), packed.begin(),
                     [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); }),
          "another row came back");
}

void TestOne(absl::string_view input) {
  static const RowCodec codecs[] = {CodecOf(0), CodecOf(1), CodecOf(2), CodecOf(3)};
  static_assert(std::size(codecs) == std::size(kCodecs));
  if (input.empty()) return;
  const RowCodec& codec = codecs[static_cast<uint8_t>(input[0]) % std::size(codecs)];
  input.remove_prefix(1);
  CheckSizes(codec.sizes(), input);
  CheckDecoding(codec, input);
  std::string packed(input);
  packed.resize(codec.sizes().packed());
  std::string encoded;
  codec.Encode(packed, &encoded);
  Require(encoded.size() <= codec.sizes().most(), "a row of ", encoded.size(), " bytes");
  CheckSizes(codec.sizes(), encoded);
  CheckDecoding(codec, encoded);
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
