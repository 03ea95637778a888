#include "replay_server/scheduler.h"

namespace troupe {

Scheduler::Scheduler() : thread_([this] { Run(); }) {}

Scheduler::~Scheduler() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    changed_.Signal();
  }
  thread_.join();
}

void Scheduler::Post(Task task) {
  absl::MutexLock lock(&mu_);
  tasks_.push_back(std::move(task));
  changed_.Signal();
}

Scheduler::TimerId Scheduler::After(absl::Duration delay, Task task) {
  const Clock::time_point due = Clock::now() + absl::ToChronoNanoseconds(delay);
  absl::MutexLock lock(&mu_);
  const TimerId id = ++newest_timer_;
  timers_.emplace(std::pair(due, id), std::move(task));
  due_.emplace(id, due);
  changed_.Signal();
  return id;
}

void Scheduler::Cancel(TimerId id) {
  absl::MutexLock lock(&mu_);
  const auto found = due_.find(id);
  if (found == due_.end()) return;
  timers_.erase({found->second, id});
  due_.erase(found);
}

Scheduler::Task Scheduler::Next() {
  absl::MutexLock lock(&mu_);
  while (!stopping_) {
    if (!timers_.empty() && timers_.begin()->first.first <= Clock::now()) {
      const auto timer = timers_.begin();
      Task task = std::move(timer->second);
      due_.erase(timer->first.second);
      timers_.erase(timer);
      return task;
    }
    if (!tasks_.empty()) {
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      return task;
    }
    const absl::Duration timeout =
        timers_.empty() ? absl::InfiniteDuration()
                        : absl::FromChrono(timers_.begin()->first.first - Clock::now());
    changed_.WaitWithTimeout(&mu_, timeout);
  }
  return nullptr;
}

void Scheduler::Run() {
  while (Task task = Next()) task();
}

}  // namespace troupe
