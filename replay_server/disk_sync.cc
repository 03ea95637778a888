#include "replay_server/disk_sync.h"

#include <chrono>

namespace troupe {

DiskSync::DiskSync(Steps steps, DiskSyncOptions options, Scheduler* scheduler)
    : steps_(std::move(steps)),
      options_(std::move(options)),
      scheduler_(scheduler),
      thread_([this] { Run(); }) {}

DiskSync::~DiskSync() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

uint64_t DiskSync::Request(uint64_t last, const std::function<void()>& wake) {
  absl::MutexLock lock(&mu_);
  wanted_ = begun_ + 1;
  if (last != wanted_) waiters_.emplace_back(wanted_, wake);
  return wanted_;
}

uint64_t DiskSync::ended() const {
  absl::MutexLock lock(&mu_);
  return ended_;
}

bool DiskSync::BeginNext() {
  absl::MutexLock lock(&mu_);
  const auto due = [this] {
    mu_.AssertReaderHeld();
    return stopping_ || wanted_ > begun_;
  };
  mu_.Await(absl::Condition(&due));
  if (stopping_) return false;
  begun_++;
  return true;
}

absl::Status DiskSync::SyncOnce(bool after_failure) {
  steps_.begin();
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status status = steps_.sync(after_failure);
  if (options_.observe) {
    options_.observe(absl::FromChrono(std::chrono::steady_clock::now() - begin));
  }
  return status.ok() ? steps_.end(after_failure) : status;
}

bool DiskSync::AwaitRetry() {
  absl::MutexLock lock(&mu_);
  return !mu_.AwaitWithTimeout(absl::Condition(&stopping_), options_.retry_delay);
}

void DiskSync::Finish() {
  absl::MutexLock lock(&mu_);
  ended_ = begun_;
  auto waiter = waiters_.begin();
  for (; waiter != waiters_.end() && waiter->first <= ended_; ++waiter) {
    scheduler_->Post(std::move(waiter->second));
  }
  waiters_.erase(waiters_.begin(), waiter);
}

void DiskSync::Run() {
  while (BeginNext()) {
    absl::Status status = SyncOnce(/*after_failure=*/false);
    while (absl::IsResourceExhausted(status)) {
      if (options_.warn) options_.warn(status);
      if (!AwaitRetry()) return;
      status = SyncOnce(/*after_failure=*/true);
    }
    if (!status.ok()) {
      if (options_.fail) options_.fail(status);
      return;
    }
    Finish();
  }
}

}  // namespace troupe
