#include "replay_server/message_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "absl/synchronization/notification.h"

namespace troupe {
namespace {

struct Woken {
  WaiterPtr waiter = std::make_shared<Waiter>();
  absl::Notification woken;

  Woken() {
    waiter->wake = [this] {
      if (!woken.HasBeenNotified()) woken.Notify();
    };
  }
};

TEST(MessageBudgetTest, GivesNoMoreThanThereIs) {
  Scheduler scheduler;
  MessageBudget budget(100, &scheduler);
  EXPECT_TRUE(budget.Take(60));
  EXPECT_FALSE(budget.Take(41));
  EXPECT_TRUE(budget.Take(40));
  EXPECT_EQ(budget.taken_bytes(), 100);
  budget.Return(60);
  EXPECT_FALSE(budget.Take(~uint64_t{0}));
  EXPECT_TRUE(budget.Take(60));
}

TEST(MessageBudgetTest, WhoWaitsIsWokenWhenItFits) {
  Woken large;
  Scheduler scheduler;
  MessageBudget budget(100, &scheduler);
  ASSERT_TRUE(budget.Take(50));
  ASSERT_TRUE(budget.Take(50));
  EXPECT_FALSE(budget.TakeOrWait(80, large.waiter));
  budget.Return(50);
  EXPECT_EQ(budget.taken_bytes(), 50);
  EXPECT_FALSE(large.woken.HasBeenNotified());
  budget.Return(50);
  large.woken.WaitForNotification();
  EXPECT_TRUE(budget.TakeOrWait(80, large.waiter));
}

TEST(MessageBudgetTest, SaysWhoWaitsForWhat) {
  Woken large;
  Scheduler scheduler;
  MessageBudget budget(100, &scheduler);
  ASSERT_TRUE(budget.Take(50));
  EXPECT_EQ(budget.WhyWaits(), "");
  EXPECT_FALSE(budget.TakeOrWait(80, large.waiter));
  EXPECT_THAT(budget.WhyWaits(), ::testing::StartsWith("1 replies, the first for "));
  EXPECT_THAT(budget.WhyWaits(), ::testing::HasSubstr("80 bytes wanted, 50 of 100 taken"));
  budget.Forget(large.waiter);
  EXPECT_EQ(budget.WhyWaits(), "");
}

TEST(MessageBudgetTest, NobodyOvertakesWhoCameFirst) {
  Woken first;
  Woken second;
  Scheduler scheduler;
  MessageBudget budget(100, &scheduler);
  ASSERT_TRUE(budget.Take(50));
  EXPECT_FALSE(budget.TakeOrWait(80, first.waiter));
  EXPECT_FALSE(budget.TakeOrWait(10, second.waiter));
  budget.Forget(first.waiter);
  second.woken.WaitForNotification();
  EXPECT_TRUE(budget.TakeOrWait(10, second.waiter));
}

}  // namespace
}  // namespace troupe
