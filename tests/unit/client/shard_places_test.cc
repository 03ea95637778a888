#include "common/shard_places.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "common/shard_directory.h"

namespace troupe {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::EndsWith;
using ::testing::IsEmpty;
using ::testing::Not;

Sighting At(const std::string& address, std::optional<uint64_t> id = {}) {
  return {.target = "shards:7", .address = address, .id = id};
}

TEST(ShardPlaces, EachWhoAnswersIsAShard) {
  ShardPlaces places;
  EXPECT_TRUE(places.MustAsk("a:7"));
  EXPECT_TRUE(places.Apply({At("a:7", 10), At("b:7", 20)}));
  ASSERT_EQ(places.shards().size(), 2);
  EXPECT_EQ(places.shards()[0].address, "a:7");
  EXPECT_EQ(places.shards()[1].id, 20);
  EXPECT_FALSE(places.MustAsk("a:7"));
  EXPECT_FALSE(places.Apply({At("a:7"), At("b:7")}));
}

TEST(ShardPlaces, AnAddressWithoutAnAnswerIsNoShardAndIsAskedAgain) {
  ShardPlaces places;
  EXPECT_FALSE(places.Apply({At("a:7", 0)}));
  EXPECT_EQ(places.shards().size(), 0);
  EXPECT_TRUE(places.MustAsk("a:7"));
}

TEST(ShardPlaces, AShardKeepsItsNumberAtAnotherAddress) {
  ShardPlaces places;
  places.Apply({At("a:7", 10), At("b:7", 20)});
  EXPECT_FALSE(places.Apply({At("b:7")}));  // it is gone, and nothing is known of where
  EXPECT_FALSE(places.shards()[0].listed);
  EXPECT_TRUE(places.Apply({At("b:7"), At("c:7", 10)}));
  ASSERT_EQ(places.shards().size(), 2);
  EXPECT_EQ(places.shards()[0].address, "c:7");
  EXPECT_EQ(places.shards()[0].moves, 1);
  EXPECT_TRUE(places.shards()[0].listed);
}

TEST(ShardPlaces, ShardsMayChangePlaces) {
  ShardPlaces places;
  places.Apply({At("a:7", 10), At("b:7", 20)});
  places.Suspect(0);
  places.Suspect(1);
  EXPECT_TRUE(places.MustAsk("a:7"));
  EXPECT_TRUE(places.Apply({At("a:7", 20), At("b:7", 10)}));
  EXPECT_EQ(places.shards()[0].address, "b:7");
  EXPECT_EQ(places.shards()[1].address, "a:7");
  EXPECT_FALSE(places.MustAsk("a:7"));
  EXPECT_FALSE(places.MustAsk("b:7"));
}

TEST(ShardPlaces, WhoTurnsUpInAnothersPlaceIsNotTakenForWhereItWas) {
  ShardPlaces places;
  places.Apply({At("a:7", 10), At("b:7", 20)});
  places.Suspect(0);
  EXPECT_FALSE(places.MustAsk("b:7"));
  places.Apply({At("a:7", 20), At("b:7")});
  EXPECT_TRUE(places.AnySuspect());
  EXPECT_TRUE(places.MustAsk("b:7"));
  EXPECT_TRUE(places.Apply({At("a:7", 20), At("b:7", 10)}));
  EXPECT_EQ(places.shards()[0].address, "b:7");
  EXPECT_EQ(places.shards()[1].address, "a:7");
  EXPECT_FALSE(places.AnySuspect());
}

TEST(ShardPlaces, ASuspectThatDoesNotAnswerStaysWhereItIs) {
  ShardPlaces places;
  places.Apply({At("a:7", 10)});
  places.Suspect(0);
  EXPECT_FALSE(places.Apply({At("a:7", 0)}));
  EXPECT_EQ(places.shards()[0].address, "a:7");
  EXPECT_TRUE(places.MustAsk("a:7"));
}

TEST(ShardPlaces, AShardWithTwoAddressesIsOneAndUsesTheOtherWhenOneFails) {
  ShardPlaces places;
  places.Apply({At("a:7", 10), At("[a]:7", 10)});
  ASSERT_EQ(places.shards().size(), 1);
  EXPECT_EQ(places.shards()[0].address, "a:7");
  places.Suspect(0);
  EXPECT_TRUE(places.Apply({At("a:7", 0), At("[a]:7", 10)}));
  EXPECT_EQ(places.shards()[0].address, "[a]:7");
}

TEST(ShardPlaces, TheChoiceIsEvenAndTheSameWhateverCameFirst) {
  ShardPlaces one;
  one.Apply({At("a:7", 30), At("b:7", 10), At("c:7", 20)});
  ShardPlaces other;
  other.Apply({At("c:7", 20)});
  other.Apply({At("c:7"), At("a:7", 30), At("b:7", 10)});
  std::set<uint64_t> chosen;
  for (uint64_t i = 0; i < 3; ++i) {
    const uint64_t id = one.shards()[one.Choose(i)].id;
    EXPECT_EQ(other.shards()[other.Choose(i)].id, id);
    EXPECT_EQ(one.Choose(i + 3), one.Choose(i));
    chosen.insert(id);
  }
  EXPECT_EQ(chosen.size(), 3);
}

TEST(ShardPlaces, WhoIsNoLongerListedIsNotChosenWhileOthersAre) {
  ShardPlaces places;
  places.Apply({At("a:7", 10), At("b:7", 20)});
  places.Apply({At("b:7")});
  EXPECT_EQ(places.Choose(0), 1);
  EXPECT_EQ(places.Choose(1), 1);
  places.Apply({});
  EXPECT_NE(places.Choose(0), places.Choose(1));
}

TEST(ShardPlaces, FixedShardsAreChosenInTheirOrderAndNeverMove) {
  ShardPlaces places;
  places.AddFixed("127.0.0.1:9");
  places.AddFixed("127.0.0.1:8");
  places.Suspect(0);
  EXPECT_FALSE(places.Apply({}));
  EXPECT_FALSE(places.shards()[0].suspect);
  EXPECT_EQ(places.Choose(0), 0);
  EXPECT_EQ(places.Choose(1), 1);
  EXPECT_EQ(places.Choose(2), 0);
}

TEST(ResolveAll, FindsEveryAddressOfANameOnce) {
  const auto addresses = ResolveAll("localhost:7000");
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  EXPECT_THAT(*addresses, Not(IsEmpty()));
  EXPECT_THAT(*addresses, Each(EndsWith(":7000")));
  EXPECT_EQ(std::set<std::string>(addresses->begin(), addresses->end()).size(), addresses->size());
  EXPECT_EQ(ResolveAll("[::1]:5").value(), std::vector<std::string>{"[::1]:5"});
}

TEST(ResolveAll, ANameThatDoesNotExistIsNamed) {
  const auto addresses = ResolveAll("no.such.host.invalid:7000");
  EXPECT_EQ(addresses.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(addresses.status().message(), testing::HasSubstr("no.such.host.invalid:7000"));
}

}  // namespace
}  // namespace troupe
