#include "common/safetensors.h"

#include <cstring>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using testing::HasSubstr;

std::string Image(const std::string& header, const std::string& data = "") {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + header + data;
}

template <typename T>
absl::string_view Bytes(const std::vector<T>& values) {
  return absl::string_view(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

TEST(SafetensorsTest, TensorsAndMetadataComeBackAsTheyWere) {
  const std::vector<float> weights = {1, -2, 3.5, 0, 1e-30f, 6};
  const std::vector<uint8_t> state = {7, 8, 9};
  const std::vector<int64_t> step = {1234567890123};
  const auto image = EncodeSafetensors({{"state", proto::UINT8, {3}, Bytes(state)},
                                        {"weights", proto::FLOAT32, {2, 3}, Bytes(weights)},
                                        {"step", proto::INT64, {}, Bytes(step)},
                                        {"empty", proto::FLOAT64, {0, 4}, ""}},
                                       {{"run", "a \"run\"\n"}});
  ASSERT_TRUE(image.ok()) << image.status();
  const std::string unaligned = "x" + *image;
  const auto parsed = Safetensors::Parse(absl::string_view(unaligned).substr(1));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->tensors().size(), 4u);
  EXPECT_EQ(parsed->Find("weights", proto::FLOAT32, {2, 3})->bytes, Bytes(weights));
  EXPECT_EQ(parsed->Find("state", proto::UINT8, {3})->bytes, Bytes(state));
  EXPECT_EQ(parsed->Find("step", proto::INT64, {})->bytes, Bytes(step));
  EXPECT_TRUE(parsed->Find("empty", proto::FLOAT64, {0, 4}).ok());
  EXPECT_EQ(*parsed->Metadata("run"), "a \"run\"\n");
}

TEST(SafetensorsTest, ATensorOfAnotherShapeIsRefusedWithBothShapes) {
  const std::vector<float> values(6);
  const auto image = EncodeSafetensors({{"w", proto::FLOAT32, {2, 3}, Bytes(values)}}, {});
  const auto parsed = Safetensors::Parse(*image);
  const absl::Status status = parsed->Find("w", proto::FLOAT32, {3, 2}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("'w' FLOAT32[2,3], expected 'w' FLOAT32[3,2]"));
  EXPECT_THAT(parsed->Find("v", proto::FLOAT32, {1}).status().message(),
              HasSubstr("no tensor 'v'"));
}

TEST(SafetensorsTest, EncodingRefusesASizeThatIsNotTheShapes) {
  const std::vector<float> values(6);
  EXPECT_FALSE(EncodeSafetensors({{"w", proto::FLOAT32, {7}, Bytes(values)}}, {}).ok());
  EXPECT_FALSE(EncodeSafetensors({{"w", proto::FLOAT32, {6}, Bytes(values)},
                                  {"w", proto::FLOAT32, {6}, Bytes(values)}},
                                 {})
                   .ok());
}

struct HostileCase {
  std::string name, image, expected;
};

class SafetensorsHostile : public testing::TestWithParam<HostileCase> {};

TEST_P(SafetensorsHostile, IsRefusedSayingWhy) {
  const auto parsed = Safetensors::Parse(GetParam().image);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(parsed.status().message(), HasSubstr(GetParam().expected));
}

std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return absl::StrCat(R"({"dtype":")", dtype, R"(","shape":)", shape, R"(,"data_offsets":)",
                      offsets, "}");
}

std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets,
                const std::string& data = "12345678") {
  return Image(absl::StrCat(R"({"a":)", Entry(dtype, shape, offsets), "}"), data);
}

std::string Two(const std::string& first, const std::string& second) {
  return Image(absl::StrCat(R"({"a":)", Entry("U8", "[4]", first), R"(,"b":)",
                            Entry("U8", "[4]", second), "}"),
               "12345678");
}

INSTANTIATE_TEST_SUITE_P(
    Images, SafetensorsHostile,
    testing::Values(
        HostileCase{"Empty", "", "too short"}, HostileCase{"SevenBytes", "1234567", "too short"},
        HostileCase{"HeaderLargerThanImage", std::string("\xff\0\0\0\0\0\0\0{}", 10), "255 bytes"},
        HostileCase{"HeaderSizeOverflows", std::string(8, '\xff') + "{}", "are allowed"},
        HostileCase{"HeaderOverOneMebibyte", Image(std::string((1 << 20) + 1, ' ')), "are allowed"},
        HostileCase{"NotJson", Image("{\"a\":"), "not well-formed"},
        HostileCase{"NotUtf8", Image("{\"\xff\":1}"), "not well-formed"},
        HostileCase{"NotAnObject", Image("[1]"), "not a JSON object"},
        HostileCase{"Nested", Image(std::string(1 << 19, '[')), "not well-formed"},
        HostileCase{"NameTwice", Image(R"({"a":{},"a":{}})"), "'a' is there twice"},
        HostileCase{"FieldTwice", Image(R"({"a":{"dtype":"U8","dtype":"F32"}})"), "twice"},
        HostileCase{"NoDtype", Image(R"({"a":{"shape":[],"data_offsets":[0,0]}})"), "no dtype"},
        HostileCase{"EntryIsANumber", Image(R"({"a":1})"), "not a JSON object"},
        HostileCase{"UnknownDtype", One("F16", "[4]", "[0,8]"), "'F16' is none of"},
        HostileCase{"MetadataIsANumber", Image(R"({"__metadata__":{"k":1}})"), "not a string"},
        HostileCase{"ShapeOverflowsToTheSize",
                    One("F32", "[4611686018427387904,4611686018427387906]", "[0,8]"),
                    "are not F32"},
        HostileCase{"ShapeOverflowsToZero", One("F32", "[4294967296,4294967296]", "[0,0]", ""),
                    "are not F32"},
        HostileCase{"NegativeAxis", One("F32", "[-2]", "[0,8]"), "no size"},
        HostileCase{"FractionalAxis", One("F32", "[2.0]", "[0,8]"), "no size"},
        HostileCase{"AxisBeyondInt64", One("U8", "[18446744073709551615]", "[0,8]"), "no size"},
        HostileCase{"ManyAxes", One("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]", "1"),
                    "has 17 numbers"},
        HostileCase{"EndBeyondData", One("U8", "[9]", "[0,9]"), "[0, 9) of 8"},
        HostileCase{"BeginAfterEnd", One("U8", "[0]", "[8,0]"), "[8, 0) of 8"},
        HostileCase{"OneOffset", One("U8", "[8]", "[8]"), "not two numbers"},
        HostileCase{"WrongSize", One("F32", "[3]", "[0,8]"), "8 bytes are not F32[3]"},
        HostileCase{"Overlap", Two("[0,4]", "[2,6]"), "begins at byte 2"},
        HostileCase{"SameBytesTwice", Two("[0,4]", "[0,4]"), "begins at byte 0"},
        HostileCase{"Gap", Two("[0,4]", "[5,9]"), "of 8"},
        HostileCase{"UncoveredEnd", One("U8", "[4]", "[0,4]"), "end at byte 4 of 8"},
        HostileCase{"UncoveredStart", One("U8", "[4]", "[4,8]"), "begins at byte 4"}),
    [](const auto& info) { return info.param.name; });

TEST(SafetensorsTest, NoFlippedBitOfAnImageCrashesTheReader) {
  const std::vector<float> values(6);
  const auto image = EncodeSafetensors(
      {{"w", proto::FLOAT32, {2, 3}, Bytes(values)}, {"v", proto::FLOAT32, {6}, Bytes(values)}},
      {{"k", "v"}});
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string broken = *image;
    for (int flips = 1 + round % 3; flips > 0; --flips) {
      broken[random() % broken.size()] ^= static_cast<char>(1 << random() % 8);
    }
    broken.resize(broken.size() - (round % 7 == 0 ? random() % broken.size() : 0));
    const auto parsed = Safetensors::Parse(broken);
    if (parsed.ok()) continue;
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  }
}

// Hugging Face's implementation, in Python, reads what this one writes and the other way round.
TEST(SafetensorsTest, PythonReadsOursAndWeReadPythons) {
  const std::string python = TROUPE_PYTHON;
  if (std::system((python + " -c 'import safetensors, numpy'").c_str()) != 0) {
    FAIL() << "no safetensors in " << python;
  }
  const std::string ours = testing::TempDir() + "/ours.safetensors";
  const std::string theirs = testing::TempDir() + "/theirs.safetensors";
  const std::vector<float> w = {0, 1, 2, 3, 4, 5};
  const std::vector<int64_t> step = {1 << 20};
  const std::vector<uint8_t> bytes = {1, 2, 3};
  const auto image = EncodeSafetensors({{"w", proto::FLOAT32, {2, 3}, Bytes(w)},
                                        {"bytes", proto::UINT8, {3}, Bytes(bytes)},
                                        {"step", proto::INT64, {}, Bytes(step)}},
                                       {{"k", "v"}});
  std::ofstream(ours, std::ios::binary) << *image;
  const std::string script = R"(
import sys, numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
t = load_file(sys.argv[1])
assert sorted(t) == ['bytes', 'step', 'w'], t
assert np.array_equal(t['w'], np.arange(6, dtype=np.float32).reshape(2, 3))
assert t['bytes'].tolist() == [1, 2, 3] and t['step'] == 1 << 20
assert safe_open(sys.argv[1], 'np').metadata() == {'k': 'v'}
save_file({**t, 'f64': np.ones((2, 2)), 'i32': np.arange(3, dtype=np.int32)}, sys.argv[2], {'k': 'w'})
)";
  std::ofstream(testing::TempDir() + "/peer.py") << script;
  const std::string command =
      absl::StrCat(python, " ", testing::TempDir(), "/peer.py ", ours, " ", theirs);
  ASSERT_EQ(std::system(command.c_str()), 0);
  std::ifstream file(theirs, std::ios::binary);
  const std::string read((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto parsed = Safetensors::Parse(read);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->Find("w", proto::FLOAT32, {2, 3})->bytes, Bytes(w));
  EXPECT_TRUE(parsed->Find("f64", proto::FLOAT64, {2, 2}).ok());
  EXPECT_TRUE(parsed->Find("i32", proto::INT32, {3}).ok());
  EXPECT_EQ(*parsed->Metadata("k"), "w");
}

}  // namespace
}  // namespace troupe
