#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "grpcpp/support/slice.h"
#include "proto/replay.pb.h"
#include "tests/bench/replay/messages.h"
#include "tests/bench/replay/rows.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kStream = 0x123456789abcdef0;

std::shared_ptr<const RowPatterns> Patterns() {
  return *MakePatterns(*LayoutNamed("half_cheetah"), 10, true);
}

absl::Span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string Rows(uint64_t stream, int64_t num_rows) {
  RowSource source(Patterns(), stream);
  std::string rows(num_rows * source.stride_bytes(), '\0');
  source.Pack(num_rows, reinterpret_cast<uint8_t*>(rows.data()));
  return rows;
}

// The message in slices of `slice_bytes`, as a transport may deliver it.
grpc::ByteBuffer InSlices(const google::protobuf::Message& message, size_t slice_bytes) {
  const std::string bytes = message.SerializeAsString();
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < bytes.size(); at += slice_bytes) {
    slices.emplace_back(bytes.substr(at, slice_bytes));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

TEST(ReplayLoadMessages, EncodedRowsAreAnAppendRequest) {
  std::vector<RowSource> streams = {RowSource(Patterns(), 1), RowSource(Patterns(), kStream)};
  EncodeRows(absl::MakeSpan(streams), 200);
  proto::AppendRequest request;
  ASSERT_TRUE(Decode(EncodeRows(absl::MakeSpan(streams), 3), &request));
  ASSERT_EQ(request.runs_size(), 2);
  EXPECT_EQ(request.runs(0).stream(), 1);
  EXPECT_EQ(request.runs(1).stream(), kStream);
  EXPECT_EQ(request.runs(1).first_row(), 200);
  EXPECT_EQ(request.runs(1).rows(), Rows(kStream, 203).substr(200 * streams[0].stride_bytes()));
  EXPECT_EQ(request.ByteSizeLong(), request.SerializeAsString().size());
}

TEST(ReplayLoadMessages, WindowsAreReadOverSlicesOfAnySize) {
  proto::SampleReply reply;
  reply.set_windows(Rows(kStream, 4));
  for (const uint64_t id : {7, 8}) reply.add_row_ids(id);
  for (const float p : {0.5F, 0.25F}) reply.add_probabilities(p);
  reply.set_mass(3);
  reply.mutable_counts()->set_inserted(40);
  reply.mutable_counts()->set_sampled(50);
  SampledWindows read;
  for (const size_t slice_bytes : {1, 7, 1000, 100000}) {
    ASSERT_TRUE(DecodeWindows(InSlices(reply, slice_bytes), &read));
    EXPECT_EQ(absl::MakeConstSpan(read.windows), Bytes(reply.windows()));
    EXPECT_THAT(read.row_ids, ElementsAre(7, 8));
    EXPECT_THAT(read.probabilities, ElementsAre(0.5F, 0.25F));
    EXPECT_EQ(read.mass, 3);
    EXPECT_EQ(read.inserted, 40);
    EXPECT_EQ(read.sampled, 50);
  }
}

TEST(ReplayLoadMessages, ReplyWithoutWindowsForgetsTheLastOnes) {
  proto::SampleReply reply;
  reply.set_windows(Rows(kStream, 4));
  reply.add_row_ids(7);
  SampledWindows read;
  ASSERT_TRUE(DecodeWindows(Encode(reply), &read));
  ASSERT_TRUE(DecodeWindows(Encode(proto::SampleReply()), &read));
  EXPECT_TRUE(read.windows.empty());
  EXPECT_TRUE(read.row_ids.empty());
}

TEST(ReplayLoadMessages, CutReplyIsNoReply) {
  proto::SampleReply reply;
  reply.set_windows(Rows(kStream, 2));
  const std::string bytes = reply.SerializeAsString();
  const grpc::Slice cut(bytes.substr(0, bytes.size() - 1));
  SampledWindows read;
  EXPECT_FALSE(DecodeWindows(grpc::ByteBuffer(&cut, 1), &read));
}

TEST(ReplayLoadMessages, FollowedRowsAreReadOverSlicesOfAnySize) {
  proto::FollowReply reply;
  for (const uint64_t stream : {uint64_t{1}, kStream}) {
    proto::FollowedRows* run = reply.add_runs();
    run->set_block(5);
    run->set_stream(stream);
    run->set_first_row(0);
    run->set_rows(Rows(stream, 3));
  }
  FollowedBatch read;
  for (const size_t slice_bytes : {1, 7, 1000}) {
    ASSERT_TRUE(DecodeFollowed(InSlices(reply, slice_bytes), &read));
    ASSERT_EQ(read.runs.size(), 2);
    EXPECT_EQ(read.runs[1].stream, kStream);
    EXPECT_EQ(read.runs[1].size_bytes, reply.runs(1).rows().size());
    EXPECT_EQ(absl::MakeConstSpan(read.rows), Bytes(reply.runs(0).rows() + reply.runs(1).rows()));
  }
}

TEST(ReplayLoadRows, ConsecutiveRowsOfOneStreamAreRightWindows) {
  EXPECT_EQ(CountWrongWindows(*Patterns(), Bytes(Rows(kStream, 12)), 3), 0);
}

TEST(ReplayLoadRows, RowsOfTwoStreamsOrWithAGapAreWrongWindows) {
  const size_t stride = Patterns()->layout.stride_bytes();
  const std::string one = Rows(kStream, 3), other = Rows(kStream + 1, 3);
  const std::string streams = one.substr(0, stride) + other.substr(stride, stride);
  const std::string gap = one.substr(0, stride) + one.substr(2 * stride, stride);
  EXPECT_EQ(CountWrongWindows(*Patterns(), Bytes(streams + gap), 2), 2);
}

TEST(ReplayLoadRows, RowsThatAreNotTheFollowedOnesAreCounted) {
  const std::string rows = Rows(kStream, 5);
  EXPECT_EQ(CountWrongRows(*Patterns(), Bytes(rows), kStream, 0), 0);
  EXPECT_EQ(CountWrongRows(*Patterns(), Bytes(rows), kStream, 1), 5);
  EXPECT_EQ(CountWrongRows(*Patterns(), Bytes(rows), kStream + 1, 0), 5);
}

TEST(ReplayLoadRows, LastRowOfAnEpisodeIsFinal) {
  const size_t stride = Patterns()->layout.stride_bytes();
  const std::string rows = Rows(kStream, 10);
  EXPECT_FALSE(IsFinal(ReadRowHeader(rows.data() + 8 * stride).flags));
  EXPECT_TRUE(IsFinal(ReadRowHeader(rows.data() + 9 * stride).flags));
}

}  // namespace
}  // namespace troupe
