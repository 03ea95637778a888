#include "replay_server/turns.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kMany = 10 << 20;  // bytes, more than any burst

TEST(TurnsTest, WritersNeedNotWaitWhileNobodySamples) {
  Turns turns;
  turns.NoteRows(kMany);
  EXPECT_TRUE(turns.IsWriters(Turns::Clock::time_point(milliseconds(5000))));
}

TEST(TurnsTest, WhileBatchesLeaveAsManyBytesComeInAsGoOut) {
  Turns turns;
  Turns::Clock::time_point now(milliseconds(5000));
  uint64_t in = 0;
  uint64_t out = 0;
  for (int i = 0; i < 1000; ++i) {
    now += milliseconds(1);
    turns.NoteWindows(60'000, now);
    out += 60'000;
    while (turns.IsWriters(now)) {
      turns.NoteRows(70'000);
      in += 70'000;
    }
  }
  EXPECT_NEAR(static_cast<double>(in) / static_cast<double>(out), 1, 0.05);
}

TEST(TurnsTest, WritersDoNotWaitForSamplersThatStopped) {
  Turns turns;
  const Turns::Clock::time_point now(milliseconds(5000));
  turns.NoteWindows(100, now);
  turns.NoteRows(kMany);
  EXPECT_FALSE(turns.IsWriters(now + milliseconds(1)));
  EXPECT_TRUE(turns.IsWriters(now + Turns::kQuiet + milliseconds(1)));
}

TEST(TurnsTest, OneBatchAfterAQuietTimeCostsWritersNothing) {
  Turns turns;
  Turns::Clock::time_point now(milliseconds(5000));
  for (int i = 0; i < 100; ++i) {
    now += milliseconds(50);
    turns.NoteWindows(100, now);
    EXPECT_TRUE(turns.IsWriters(now));
    turns.NoteRows(64 << 10);
    EXPECT_TRUE(turns.IsWriters(now));
    turns.NoteRows(kMany);
  }
}

}  // namespace
}  // namespace troupe
