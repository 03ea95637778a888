#ifndef TROUPE_TESTS_UNIT_FUSED_HOST_RANKS_H_
#define TROUPE_TESTS_UNIT_FUSED_HOST_RANKS_H_

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "learner/rank_group.h"
#include "tests/gpu_on_host/cuda_runtime_api.h"

namespace troupe {

// Two ranks, each in a thread of its own and with a GPU that this machine executes.
inline constexpr int kHostRanks = 2;

// Where they meet.
class MeetingPlace final {
 public:
  // All ranks' numbers, once all have given theirs.  Every rank makes as many calls.
  std::vector<std::vector<double>> Exchange(int rank, std::vector<double> mine) {
    const absl::MutexLock lock(&mutex_);
    const int64_t call = calls_[rank]++;
    if (static_cast<int64_t>(given_.size()) <= call) given_.resize(call + 1);
    given_[call].resize(kHostRanks);
    given_[call][rank] = std::move(mine);
    const auto all_came = [&] {
      for (int64_t calls : calls_) {
        if (calls <= call) return false;
      }
      return true;
    };
    mutex_.Await(absl::Condition(&all_came));
    return given_[call];
  }

 private:
  absl::Mutex mutex_;
  int64_t calls_[kHostRanks] = {};
  std::vector<std::vector<std::vector<double>>> given_;
};

// Sums of two floats as doubles are those of floats, once they are floats again.
class HostRanks final : public RankGroup {
 public:
  // So many sums on the GPU fail as what cannot be captured does, after the first one, by which the
  // ranks meet.
  HostRanks(int rank, MeetingPlace* place, int failures)
      : rank_(rank), place_(place), failures_(failures) {}

  int rank() const override { return rank_; }
  int size() const override { return kHostRanks; }
  absl::Status Sum(absl::Span<float> values) override {
    AddUp(values.data(), values.size());
    return absl::OkStatus();
  }
  absl::Status Sum(absl::Span<double> values) override {
    AddUp(values.data(), values.size());
    return absl::OkStatus();
  }
  absl::StatusOr<int64_t> Least(int64_t value) override {
    const auto all = place_->Exchange(rank_, {static_cast<double>(value)});
    return static_cast<int64_t>(std::min(all[0][0], all[1][0]));
  }
  absl::StatusOr<std::string> FromFirst(std::string bytes) override {
    return absl::UnimplementedError("no bytes");
  }

  // Sums on the GPU that were asked for, those of graphs once for each graph.
  int calls() const { return calls_; }

  absl::Status SumOnDevice(float* values, int64_t n, void* stream) override {
    const int call = calls_++;
    if (call >= 1 && call <= failures_) return absl::InternalError("this cannot be captured");
    gpu_on_host::Give(static_cast<cudaStream_t>(stream), [this, values, n] { AddUp(values, n); });
    return absl::OkStatus();
  }

 private:
  template <typename T>
  void AddUp(T* values, int64_t n) {
    const auto all = place_->Exchange(rank_, {values, values + n});
    for (int64_t i = 0; i < n; ++i) values[i] = static_cast<T>(all[0][i] + all[1][i]);
  }

  const int rank_;
  MeetingPlace* const place_;
  const int failures_;
  int calls_ = 0;
};

// Runs `one` for each rank, in a thread of its own.  `failures`: of each rank.
inline void RunHostRanks(const std::vector<int>& failures,
                         const std::function<void(HostRanks&)>& one) {
  MeetingPlace place;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kHostRanks; ++rank) {
    threads.emplace_back([&, rank] {
      HostRanks ranks(rank, &place, failures[rank]);
      one(ranks);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A group of one whose numbers pass through the host's memory.
class RankOnTheHost final : public RankGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  absl::Status Sum(absl::Span<float> values) override { return absl::OkStatus(); }
  absl::Status Sum(absl::Span<double> values) override { return absl::OkStatus(); }
  absl::StatusOr<int64_t> Least(int64_t value) override { return value; }
  absl::StatusOr<std::string> FromFirst(std::string bytes) override { return bytes; }
};

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_FUSED_HOST_RANKS_H_
