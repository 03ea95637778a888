// A thread-sanitized build ends at a data race, and takes Abseil's locks for what they are.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

namespace troupe {
namespace {

// Runs `first` and then `second`, each on its own thread; nothing but what they do themselves
// orders the one before the other for ThreadSanitizer.
template <typename First, typename Second>
void InTurn(const First& first, const Second& second) {
  std::atomic<bool> first_is_done{false};  // relaxed: turns are taken, and nothing is ordered
  std::thread one([&] {
    first();
    first_is_done.store(true, std::memory_order_relaxed);
  });
  std::thread two([&] {
    while (!first_is_done.load(std::memory_order_relaxed)) std::this_thread::yield();
    second();
  });
  one.join();
  two.join();
}

// Ends the process as a test program ends: with ThreadSanitizer's code if it saw a race.
template <typename First, typename Second>
void InTurnAndExit(const First& first, const Second& second) {
  InTurn(first, second);
  std::exit(0);
}

const auto kEndsOfARace = testing::ExitedWithCode(66);
constexpr char kRace[] = "ThreadSanitizer: data race";

class ThreadSanitizer : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  absl::Mutex mu_;
  absl::Mutex other_mu_;
  int value_ = 0;
};

TEST_F(ThreadSanitizer, EndsAProgramWithARace) {
  EXPECT_EXIT(InTurnAndExit([&] { ++value_; }, [&] { ++value_; }), kEndsOfARace, kRace);
}

TEST_F(ThreadSanitizer, SeesThatOneSideTakesNoMutex) {
  const auto locked = [&] {
    absl::MutexLock lock(&mu_);
    ++value_;
  };
  EXPECT_EXIT(InTurnAndExit(locked, [&] { ++value_; }), kEndsOfARace, kRace);
  EXPECT_EXIT(InTurnAndExit([&] { ++value_; }, locked), kEndsOfARace, kRace);
}

TEST_F(ThreadSanitizer, SeesThatTheSidesTakeDifferentMutexes) {
  const auto locked = [&](absl::Mutex* mu) {
    absl::MutexLock lock(mu);
    ++value_;
  };
  EXPECT_EXIT(InTurnAndExit([&] { locked(&mu_); }, [&] { locked(&other_mu_); }), kEndsOfARace,
              kRace);
}

TEST_F(ThreadSanitizer, SeesAWriteAfterTheMutexWasLetGo) {
  const auto late = [&] {
    mu_.Lock();
    mu_.Unlock();
    ++value_;
  };
  EXPECT_EXIT(InTurnAndExit(late, late), kEndsOfARace, kRace);
}

TEST_F(ThreadSanitizer, TakesAMutexForAnOrder) {
  const auto locked = [&] {
    absl::MutexLock lock(&mu_);
    ++value_;
  };
  InTurn(locked, locked);
  EXPECT_EQ(value_, 2);
}

TEST_F(ThreadSanitizer, TakesAnAwaitedConditionForAnOrder) {
  bool written = false;
  std::thread waiter([&] {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&written));
    ++value_;
  });
  mu_.Lock();
  ++value_;
  written = true;
  mu_.Unlock();
  waiter.join();
  EXPECT_EQ(value_, 2);
}

// Whoever unlocks evaluates the condition on the waiter's behalf, after its own last access.
TEST_F(ThreadSanitizer, TakesAConditionEvaluatedByAnotherThreadForLocked) {
  std::thread waiter([&] {
    for (int target = 1; target < 2000; target += 2) {
      const auto reached = [&] { return value_ >= target; };
      mu_.LockWhen(absl::Condition(&reached));
      ++value_;
      mu_.Unlock();
    }
  });
  while (true) {
    absl::MutexLock lock(&mu_);
    if (value_ >= 2000) break;
    if (value_ % 2 == 0) ++value_;
  }
  waiter.join();
}

// A waiter that finds the mutex held leaves its condition, which lies on its stack, to the holder.
TEST_F(ThreadSanitizer, TakesAConditionLeftToTheHolderForAnOrder) {
  for (int round = 1; round <= 50; ++round) {
    std::atomic<bool> about_to_wait{false};
    mu_.Lock();
    std::thread waiter([&] {
      about_to_wait.store(true, std::memory_order_relaxed);
      const auto reached = [&] { return value_ >= round; };
      mu_.LockWhen(absl::Condition(&reached));
      mu_.Unlock();
    });
    while (!about_to_wait.load(std::memory_order_relaxed)) std::this_thread::yield();
    for (int i = 0; i < 100; ++i) std::this_thread::yield();  // it may have left it by then
    ++value_;
    mu_.Unlock();
    waiter.join();
  }
}

TEST_F(ThreadSanitizer, TakesACondVarForAnOrder) {
  absl::CondVar written;
  std::thread waiter([&] {
    absl::MutexLock lock(&mu_);
    while (value_ == 0) written.Wait(&mu_);
    ++value_;
  });
  {
    absl::MutexLock lock(&mu_);
    ++value_;
    written.Signal();
  }
  waiter.join();
  EXPECT_EQ(value_, 2);
}

TEST_F(ThreadSanitizer, TakesANotificationForAnOrder) {
  absl::Notification written;
  int seen_by_waiter = 0;
  int seen_by_poller = 0;
  std::thread waiter([&] {
    written.WaitForNotification();
    seen_by_waiter = value_;
  });
  std::thread poller([&] {
    while (!written.HasBeenNotified()) std::this_thread::yield();
    seen_by_poller = value_;
  });
  ++value_;
  written.Notify();
  waiter.join();
  poller.join();
  EXPECT_EQ(seen_by_waiter, 1);
  EXPECT_EQ(seen_by_poller, 1);
}

}  // namespace
}  // namespace troupe
