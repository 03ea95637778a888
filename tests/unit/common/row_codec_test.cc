#include "common/row_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "tests/unit/common/frame_rows.h"

namespace troupe {
namespace {

using testing::FrameLayout;
using testing::FrameLayoutProto;
using testing::FrameRow;
using ::testing::HasSubstr;

proto::ColumnCompression Setting(const std::string& column, proto::Compression codec) {
  proto::ColumnCompression setting;
  setting.set_column(column);
  setting.set_codec(codec);
  return setting;
}

class RowCodecTest : public ::testing::TestWithParam<proto::Compression> {
 protected:
  std::string Encoded(uint64_t first, uint64_t count) const {
    std::string encoded;
    for (uint64_t row = first; row < first + count; ++row)
      codec_.Encode(FrameRow(3, row), &encoded);
    return encoded;
  }
  static std::string Packed(uint64_t first, uint64_t count) {
    std::string packed;
    for (uint64_t row = first; row < first + count; ++row) packed += FrameRow(3, row);
    return packed;
  }

  const Layout layout_ = FrameLayout(GetParam());
  const RowCodec codec_{layout_};
};

class CompressedRowCodecTest : public RowCodecTest {};

TEST_P(RowCodecTest, RowsComeBackToTheByte) {
  const std::string encoded = Encoded(0, 50);
  std::string packed = "what was there before";
  ASSERT_TRUE(codec_.DecodeAll(encoded, &packed).ok());
  EXPECT_EQ(packed, Packed(0, 50));
  EXPECT_EQ(codec_.sizes().Count(encoded), 50);
  EXPECT_EQ(Encoded(0, 50), encoded);
  ASSERT_TRUE(codec_.DecodeAll("", &packed).ok());
  EXPECT_EQ(packed, "");
}

TEST_P(CompressedRowCodecTest, APictureOfSquaresIsSmallerAndNoiseIsStoredAsItIs) {
  EXPECT_LT(Encoded(0, 1).size(), codec_.sizes().packed() / 4);
  const std::string noise = Encoded(6, 1);
  EXPECT_LE(noise.size(), codec_.sizes().most());
  EXPECT_THAT(noise, HasSubstr(FrameRow(3, 6).substr(17, testing::kFrameBytes)));
}

TEST_P(RowCodecTest, SizesAreKnownWithoutTheCodec) {
  const std::string encoded = Encoded(0, 20);
  const RowSizes sizes(layout_);
  size_t begin = 0;
  for (uint64_t row = 0; row < 20; ++row) {
    EXPECT_EQ(sizes.First(absl::string_view(encoded).substr(begin)), Encoded(row, 1).size());
    begin += Encoded(row, 1).size();
    EXPECT_EQ(begin % 8, 0);
    EXPECT_EQ(sizes.FirstRows(encoded, row + 1), begin);
  }
  EXPECT_EQ(begin, encoded.size());
  EXPECT_EQ(sizes.FirstRows(encoded, 21), std::nullopt);
  EXPECT_EQ(sizes.Count(""), 0);
  EXPECT_EQ(sizes.Count(absl::string_view(encoded).substr(1)), std::nullopt);
}

TEST_P(RowCodecTest, RowsThatAreCutOffAreRefused) {
  const std::string encoded = Encoded(0, 2);
  std::string packed;
  for (size_t size = 1; size < encoded.size(); ++size) {
    const auto cut = absl::string_view(encoded).substr(0, size);
    // A copy that ends where the bytes do, for AddressSanitizer.
    const std::vector<char> bytes(cut.begin(), cut.end());
    const absl::string_view view(bytes.data(), bytes.size());
    if (size == codec_.sizes().First(encoded)) continue;
    EXPECT_EQ(codec_.DecodeAll(view, &packed).code(), absl::StatusCode::kInvalidArgument) << size;
  }
  packed.resize(3 * codec_.sizes().packed());
  auto* const to = reinterpret_cast<uint8_t*>(packed.data());
  EXPECT_EQ(codec_.Decode(encoded, 1, to).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(codec_.Decode(encoded, 3, to).code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(RowCodecTest, EveryFlippedByteGivesAnErrorOrAnotherRow) {
  const std::string encoded = Encoded(0, 1);
  std::string packed;
  for (size_t at = 0; at < encoded.size(); ++at) {
    for (const int flip : {1, 0x80, 0xff}) {
      std::vector<char> bytes(encoded.begin(), encoded.end());
      bytes[at] = static_cast<char>(bytes[at] ^ flip);
      const absl::Status status = codec_.DecodeAll({bytes.data(), bytes.size()}, &packed);
      if (status.ok()) {
        EXPECT_EQ(packed.size() % codec_.sizes().packed(), 0);
      } else {
        EXPECT_TRUE(absl::IsInvalidArgument(status) || absl::IsDataLoss(status)) << status;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, CompressedRowCodecTest, ::testing::Values(proto::LZ4, proto::ZSTD),
                         [](const auto& info) { return proto::Compression_Name(info.param); });
INSTANTIATE_TEST_SUITE_P(All, RowCodecTest,
                         ::testing::Values(proto::COMPRESSION_NONE, proto::LZ4, proto::ZSTD),
                         [](const auto& info) { return proto::Compression_Name(info.param); });

TEST(SetCompression, NamesTheColumnsThatThereAre) {
  proto::Layout layout = FrameLayoutProto(proto::COMPRESSION_NONE);
  ASSERT_TRUE(SetCompression({Setting("observation.pixels", proto::ZSTD)}, &layout).ok());
  EXPECT_EQ(layout.columns(1).compression(), proto::ZSTD);
  EXPECT_TRUE(Layout::FromProto(layout)->has_compressed_columns());
  const absl::Status twice = SetCompression({Setting("observation.pixels", proto::LZ4)}, &layout);
  EXPECT_THAT(std::string(twice.message()), HasSubstr("twice"));
  const absl::Status unknown = SetCompression({Setting("pixels", proto::LZ4)}, &layout);
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("'pixels'; there are: small, observation"));
}

TEST(RowCodec, AHigherLevelMakesRowsSmaller) {
  const Layout layout = FrameLayout(proto::ZSTD);
  proto::ColumnCompression best = Setting("observation.pixels", proto::ZSTD);
  best.set_level(19);
  const RowCodec fast(layout);
  const RowCodec slow(layout, {best});
  std::string by_fast;
  std::string by_slow;
  for (uint64_t row = 0; row < 100; ++row) {
    if (row % 7 == 6) continue;
    fast.Encode(FrameRow(1, row), &by_fast);
    slow.Encode(FrameRow(1, row), &by_slow);
  }
  EXPECT_LT(by_slow.size(), by_fast.size());
  std::string packed;
  EXPECT_TRUE(fast.DecodeAll(by_slow, &packed).ok());
}

// Held by codec_test.py, too: both languages read the same bytes.
TEST(RowCodec, OldBytesAreUnderstood) {
  const std::map<proto::Compression, std::string> golden = {
      {proto::LZ4,
       "00000000000000000200000000000000070000003f0b0000001f0501002750050505050500000000"},
      {proto::ZSTD,
       "00000000000000000200000000000000070000003f1100000028b52ffd204045000010050501009300160000000"
       "00000"},
  };
  for (const auto& [compression, encoded] : golden) {
    proto::Layout layout = FrameLayoutProto(compression);
    layout.mutable_columns(1)->clear_shape();
    for (const uint32_t axis : {8, 8, 1}) layout.mutable_columns(1)->add_shape(axis);
    layout.mutable_columns()->DeleteSubrange(2, 2);
    const RowCodec codec(*Layout::FromProto(layout));
    std::string row(88, '\0');
    row[8] = kTruncated;
    row[16] = 7;
    std::fill(row.begin() + 17, row.begin() + 81, 5);
    const float reward = 0.5f;
    std::memcpy(row.data() + 84, &reward, sizeof(reward));
    std::string packed;
    ASSERT_TRUE(codec.DecodeAll(absl::HexStringToBytes(encoded), &packed).ok());
    EXPECT_EQ(packed, row);
  }
}

TEST(Layout, AnotherCompressionOfAColumnIsAnotherLayout) {
  const absl::Status status = FrameLayout(proto::LZ4).CheckSame(FrameLayout(proto::ZSTD));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("'observation.pixels' UINT8[40,40,1] ZSTD where 'observation.pixels' "
                        "UINT8[40,40,1] LZ4 is stored"));
  proto::Layout unknown = FrameLayoutProto(static_cast<proto::Compression>(7));
  EXPECT_EQ(Layout::FromProto(unknown).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace troupe
