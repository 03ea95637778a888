#include "replay_server/disk_sync.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>

#include "absl/synchronization/notification.h"

namespace troupe {
namespace {

// A disk whose syncs end when the test says so, with the status that the test says.
class FakeDisk final {
 public:
  explicit FakeDisk(DiskSyncOptions options = {}) {
    options.retry_delay = absl::ZeroDuration();
    options.fail = [this](const absl::Status& status) {
      failure_ = status;
      failed_.Notify();
    };
    DiskSync::Steps steps;
    steps.begin = [this] { begun_++; };
    steps.sync = [this](bool after_failure) { return AwaitResult(after_failure); };
    steps.end = [this](bool after_failure) {
      ended_after_failure_ = after_failure;
      return end_status_;
    };
    sync_ = std::make_unique<DiskSync>(std::move(steps), std::move(options), &scheduler_);
  }
  ~FakeDisk() {
    {
      absl::MutexLock lock(&mu_);
      closed_ = true;
    }
    sync_ = nullptr;
  }

  DiskSync& sync() { return *sync_; }
  int begun() const { return begun_; }
  bool ended_after_failure() const { return ended_after_failure_; }
  void FailEnd(const absl::Status& status) { end_status_ = status; }
  void AwaitBegun(int syncs) {
    while (begun_ < syncs) std::this_thread::yield();
  }
  // Ends the sync under way, or the next.
  void EndSync(const absl::Status& status) {
    absl::MutexLock lock(&mu_);
    result_ = status;
    has_result_ = true;
    const auto taken = [this] {
      mu_.AssertReaderHeld();
      return !has_result_;
    };
    mu_.Await(absl::Condition(&taken));
  }
  absl::Status AwaitFailure() {
    failed_.WaitForNotification();
    return failure_;
  }

 private:
  absl::Status AwaitResult(bool after_failure) {
    absl::MutexLock lock(&mu_);
    const auto ready = [this] {
      mu_.AssertReaderHeld();
      return has_result_ || closed_;
    };
    mu_.Await(absl::Condition(&ready));
    has_result_ = false;
    return result_;
  }

  Scheduler scheduler_;
  std::atomic<int> begun_{0};
  std::atomic<bool> ended_after_failure_{false};
  absl::Status end_status_;
  absl::Status failure_;
  absl::Notification failed_;
  absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool has_result_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status result_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<DiskSync> sync_;
};

TEST(DiskSyncTest, ACallIsWokenByASyncThatBeganAfterItAsked) {
  FakeDisk disk;
  absl::Notification first;
  EXPECT_EQ(disk.sync().Request(0, [&first] { first.Notify(); }), 1);
  disk.AwaitBegun(1);
  // The sync under way does not cover what comes now.
  absl::Notification second;
  EXPECT_EQ(disk.sync().Request(0, [&second] { second.Notify(); }), 2);
  disk.EndSync(absl::OkStatus());
  first.WaitForNotification();
  disk.AwaitBegun(2);
  EXPECT_EQ(disk.sync().ended(), 1);
  EXPECT_FALSE(second.HasBeenNotified());
  disk.EndSync(absl::OkStatus());
  second.WaitForNotification();
  EXPECT_EQ(disk.sync().ended(), 2);
}

TEST(DiskSyncTest, CallsThatComeWhileOneSyncRunsShareTheNext) {
  FakeDisk disk;
  disk.sync().Request(0, [] {});
  disk.AwaitBegun(1);
  std::atomic<int> woken{0};
  absl::Notification last;
  uint64_t told = 0;
  for (int i = 0; i < 10; ++i) told = disk.sync().Request(0, [&woken] { woken++; });
  EXPECT_EQ(disk.sync().Request(told, [&woken] { woken++; }), told);  // waits already
  disk.sync().Request(0, [&last] { last.Notify(); });
  disk.EndSync(absl::OkStatus());
  disk.EndSync(absl::OkStatus());
  last.WaitForNotification();
  EXPECT_EQ(woken, 10);
  EXPECT_EQ(disk.begun(), 2);
}

TEST(DiskSyncTest, AFullDiskIsTriedAgainFromTheBeginningAndNobodyIsWokenUntilItWorks) {
  std::atomic<int> warnings{0};
  FakeDisk disk({.warn = [&warnings](const absl::Status&) { warnings++; }});
  absl::Notification woken;
  disk.sync().Request(0, [&woken] { woken.Notify(); });
  disk.EndSync(absl::ResourceExhaustedError("full"));
  disk.EndSync(absl::ResourceExhaustedError("full"));
  disk.AwaitBegun(3);
  EXPECT_EQ(warnings, 2);
  EXPECT_EQ(disk.sync().ended(), 0);
  EXPECT_FALSE(woken.HasBeenNotified());
  disk.EndSync(absl::OkStatus());
  woken.WaitForNotification();
  EXPECT_TRUE(disk.ended_after_failure());
}

TEST(DiskSyncTest, AnyOtherFailureIsForGood) {
  FakeDisk disk;
  absl::Notification woken;
  disk.sync().Request(0, [&woken] { woken.Notify(); });
  disk.EndSync(absl::InternalError("EIO"));
  EXPECT_EQ(disk.AwaitFailure(), absl::InternalError("EIO"));
  disk.sync().Request(0, [&woken] { woken.Notify(); });
  EXPECT_EQ(disk.sync().ended(), 0);
  EXPECT_FALSE(woken.HasBeenNotified());
  EXPECT_EQ(disk.begun(), 1);
}

TEST(DiskSyncTest, RowsThatWereLostWhileTheDiskWasFullAreForGoodToo) {
  FakeDisk disk;
  disk.FailEnd(absl::DataLossError("lost"));
  disk.sync().Request(0, [] {});
  disk.EndSync(absl::ResourceExhaustedError("full"));
  disk.EndSync(absl::OkStatus());
  EXPECT_EQ(disk.AwaitFailure(), absl::DataLossError("lost"));
  EXPECT_EQ(disk.sync().ended(), 0);
}

TEST(DiskSyncTest, ItStopsWhileTheDiskIsFull) {
  Scheduler scheduler;
  absl::Notification tried;
  DiskSync::Steps steps;
  steps.begin = [] {};
  steps.sync = [](bool) { return absl::ResourceExhaustedError("full"); };
  steps.end = [](bool) { return absl::OkStatus(); };
  DiskSyncOptions options;
  options.retry_delay = absl::Hours(1);
  options.warn = [&tried](const absl::Status&) { tried.Notify(); };
  DiskSync sync(std::move(steps), options, &scheduler);
  sync.Request(0, [] {});
  tried.WaitForNotification();
}

}  // namespace
}  // namespace troupe
