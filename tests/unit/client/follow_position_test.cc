#include "common/follow_position.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace troupe {
namespace {

constexpr int64_t kStride = 24;

struct FollowedRun {
  uint64_t block;
  uint64_t first_row;
  size_t bytes;
};

proto::FollowReply Reply(const std::vector<FollowedRun>& runs) {
  proto::FollowReply reply;
  for (const FollowedRun& run : runs) {
    proto::FollowedRows* rows = reply.add_runs();
    rows->set_block(run.block);
    rows->set_first_row(run.first_row);
    rows->set_rows(std::string(run.bytes, 'r'));
  }
  return reply;
}

// Where to go on: the next block, and rows by block.
struct Place {
  uint64_t next_block;
  std::map<uint64_t, uint32_t> partial;
  bool operator==(const Place&) const = default;
};

Place PlaceOf(FollowPosition& position) {
  proto::FollowRequest request;
  position.Describe(&request);
  Place place = {.next_block = request.next_block()};
  for (const proto::BlockPosition& each : request.partial())
    place.partial[each.block()] = each.rows();
  return place;
}

TEST(FollowPosition, KnowsTheNextBlockAndWhatIsThereOfOpenOnes) {
  FollowPosition position(64 * 100, kStride);
  EXPECT_TRUE(position.at_the_beginning());
  EXPECT_EQ(PlaceOf(position), (Place{0, {}}));
  ASSERT_TRUE(position.Advance(Reply({{1, 0, 10 * kStride}, {2, 70, 3 * kStride}})).ok());
  EXPECT_EQ(PlaceOf(position), (Place{3, {{1, 10}, {2, 3}}}));
  ASSERT_TRUE(position.Advance(Reply({{1, 10, 54 * kStride}, {2, 73, kStride}})).ok());
  EXPECT_EQ(PlaceOf(position), (Place{3, {{2, 4}}}));
  ASSERT_TRUE(position.Advance(Reply({{2, 74, 54 * kStride}, {7, 640, 64 * kStride}})).ok());
  EXPECT_EQ(PlaceOf(position), (Place{8, {}}));
  position.Reset();
  EXPECT_TRUE(position.at_the_beginning());
}

TEST(FollowPosition, ForgetsOpenBlocksThatTheRingHasGivenUp) {
  FollowPosition position(64 * 10, kStride);
  for (uint64_t block = 1; block <= 1000; ++block) {
    ASSERT_TRUE(position.Advance(Reply({{block, 0, kStride}})).ok());
  }
  const Place place = PlaceOf(position);
  EXPECT_EQ(place.next_block, 1001);
  EXPECT_EQ(place.partial.size(), 10);
  EXPECT_EQ(place.partial.begin()->first, 991);
}

TEST(FollowPosition, RepliesThatNoShardSendsAreErrors) {
  for (const FollowedRun& bad : std::vector<FollowedRun>{{3, 0, 0},             // no rows
                                                         {3, 0, kStride + 1},   // a part of a row
                                                         {3, 60, 5 * kStride},  // beyond the block
                                                         {1, 11, kStride},      // a gap
                                                         {1, 9, kStride},       // again
                                                         {2, 0, kStride},  // of a complete block
                                                         {3, ~uint64_t{0} - 63, kStride},
                                                         {~uint64_t{0}, 0, kStride},
                                                         {0, 0, kStride}}) {  // of none
    FollowPosition position(64 * 100, kStride);
    ASSERT_TRUE(position.Advance(Reply({{1, 0, 10 * kStride}, {2, 0, 64 * kStride}})).ok());
    EXPECT_EQ(position.Advance(Reply({bad})).code(), absl::StatusCode::kInternal)
        << "block " << bad.block << ", row " << bad.first_row << ", " << bad.bytes << " bytes";
  }
}

}  // namespace
}  // namespace troupe
