#ifndef TROUPE_TESTS_UNIT_FUSED_HOST_PPO_MACHINE_H_
#define TROUPE_TESTS_UNIT_FUSED_HOST_PPO_MACHINE_H_

#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "learner/fused/block_ppo_engine.h"
#include "learner/fused/ppo_program.h"

namespace troupe {

// Threads of a block that take turns on one thread of this machine: each goes on to its next
// Sync(), in their order and then in the opposite one.  So one that reads what another has yet to
// write, or writes what another has yet to read, does so in one of two orders.
class TakingTurns final {
 public:
  explicit TakingTurns(int threads) : threads_(threads) {
    for (Thread& thread : threads_) thread.stack.resize(256 << 10);
  }

  int size() const { return static_cast<int>(threads_.size()); }

  // `program` is given the thread's number.
  void Run(const std::function<void(int)>& program) {
    program_ = &program;
    for (Thread& thread : threads_) {
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.data();
      thread.context.uc_stack.ss_size = thread.stack.size();
      thread.context.uc_link = &scheduler_;
      makecontext(&thread.context, &TakingTurns::Begin, 0);
      thread.done = false;
    }
    for (int64_t turn = 0; !threads_[0].done; ++turn) {
      for (int i = 0; i < size(); ++i) GoOn(turn % 2 == 0 ? i : size() - 1 - i);
      const auto is_done = [](const Thread& thread) { return thread.done; };
      // A GPU would wait for ever, or not at all.
      ASSERT_EQ(std::any_of(threads_.begin(), threads_.end(), is_done), threads_[0].done);
      ASSERT_EQ(std::all_of(threads_.begin(), threads_.end(), is_done), threads_[0].done);
    }
  }

  void Sync() { swapcontext(&threads_[current_].context, &scheduler_); }

 private:
  struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    bool done = true;
  };

  static void Begin() {
    TakingTurns& all = *running_;
    const int mine = all.current_;
    (*all.program_)(mine);
    all.threads_[mine].done = true;
  }

  void GoOn(int thread) {
    running_ = this;
    current_ = thread;
    swapcontext(&scheduler_, &threads_[thread].context);
  }

  static inline thread_local TakingTurns* running_ = nullptr;
  std::vector<Thread> threads_;
  const std::function<void(int)>* program_ = nullptr;
  ucontext_t scheduler_;
  int current_ = 0;
};

struct HostBlock {
  double* shared;
  int index, blocks, thread, threads;
  TakingTurns* turns;

  void Sync() const { turns->Sync(); }
};

// Executes the GPU's programs on this machine, one block after another.  What a block's threads
// share is not a number at first.
class HostPpoMachine final : public PpoMachine {
 public:
  explicit HostPpoMachine(int threads) : turns_(threads) {}

  int threads() const override { return turns_.size(); }
  int64_t shared_bytes() const override { return 48 << 10; }

  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    memory_.push_back(std::make_unique<double[]>((bytes + 7) / 8));
    return memory_.back().get();
  }
  absl::Status Upload(const void* from, int64_t bytes, void* to) override {
    std::memcpy(to, from, bytes);
    return absl::OkStatus();
  }
  absl::Status Download(const void* from, int64_t bytes, void* to) override {
    std::memcpy(to, from, bytes);
    return absl::OkStatus();
  }

  absl::Status RunEpochs(const PpoTask& task, int64_t epochs, int64_t minibatches) override {
    shared_.resize(std::max<int64_t>(PpoSharedBytes(task, task.tile_rows) / 8 + 1, threads()));
    for (int64_t epoch = 0; epoch < epochs; ++epoch) {
      PpoBeginEpoch(task);
      // A graph may have more minibatches than the batch.
      for (int i = 0; i < minibatches + 1; ++i) {
        RunBlocks(2 * task.row_blocks, [&](const HostBlock& block) { PpoRows(block, task, i); });
        RunBlocks(task.sum_blocks, [&](const HostBlock& block) {
          PpoSum(block, task, i);
          PpoSquares(block, task, i);
        });
        RunBlocks(task.sum_blocks, [&](const HostBlock& block) { PpoDescend(block, task, i); });
      }
    }
    return absl::OkStatus();
  }

 private:
  void RunBlocks(int blocks, const std::function<void(const HostBlock&)>& program) {
    for (int index = 0; index < blocks; ++index) {
      std::fill(shared_.begin(), shared_.end(), std::numeric_limits<double>::quiet_NaN());
      turns_.Run([&](int thread) {
        program({shared_.data(), index, blocks, thread, threads(), &turns_});
      });
    }
  }

  TakingTurns turns_;
  std::vector<double> shared_;
  std::vector<std::unique_ptr<double[]>> memory_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_FUSED_HOST_PPO_MACHINE_H_
