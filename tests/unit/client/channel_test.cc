#include "common/channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::HasSubstr;

TEST(Channel, OnlyLiteralLoopbackAddressesAreLoopback) {
  for (const char* target :
       {"localhost:1", "127.0.0.1:80", "127.255.0.9:80", "[::1]:80", "unix:/tmp/x"}) {
    EXPECT_TRUE(IsLoopback(target)) << target;
  }
  for (const char* target :
       {"127.evil.com:1", "127.0.0.1.evil.com:1", "10.0.0.1:1", "shard:1", "127.0.0:1",
        "127.0.0.256:1", "[::2]:1", "localhost", "", "0.0.0.0:1", "localhost.evil.com:1"}) {
    EXPECT_FALSE(IsLoopback(target)) << target;
  }
}

TEST(Channel, PlaintextToAnotherMachineNeedsTheFlag) {
  const auto refused = MakeChannel("10.0.0.1:5000", *Credentials::Plaintext());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.status().message(), HasSubstr("10.0.0.1:5000"));
  EXPECT_TRUE(MakeChannel("10.0.0.1:5000", *Credentials::Plaintext(/*anywhere=*/true)).ok());
  EXPECT_TRUE(MakeChannel("127.0.0.1:5000", *Credentials::Plaintext()).ok());
}

TEST(Channel, StatusKeepsItsCodeAndNamesTheTarget) {
  const absl::Status status =
      FromGrpc({grpc::StatusCode::FAILED_PRECONDITION, "another run"}, "asking", "host:1");
  EXPECT_EQ(status, absl::FailedPreconditionError("asking host:1: another run"));
  EXPECT_TRUE(IsPermanent(status));
  EXPECT_FALSE(IsPermanent(absl::UnavailableError("")));
  EXPECT_FALSE(IsPermanent(absl::ResourceExhaustedError("")));
  EXPECT_FALSE(IsPermanent(absl::OkStatus()));
}

TEST(Backoff, DoublesUpToItsMaximumWithJitterAndResets) {
  Backoff backoff(absl::Milliseconds(100), absl::Milliseconds(300), 1);
  for (int round = 0; round < 2; ++round) {
    for (const int64_t full : {100, 200, 300, 300, 300}) {
      const absl::Duration delay = backoff.Next();
      EXPECT_GE(delay, absl::Milliseconds(full) / 2);
      EXPECT_LE(delay, absl::Milliseconds(full));
    }
    backoff.Reset();
  }
}

TEST(Backoff, DelaysOfTwoSeedsDiffer) {
  EXPECT_NE(Backoff(absl::Seconds(1), absl::Seconds(2), 1).Next(),
            Backoff(absl::Seconds(1), absl::Seconds(2), 2).Next());
}

}  // namespace
}  // namespace troupe
