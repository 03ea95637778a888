#include "tests/gpu_on_host/threads.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/gpu_on_host/cuda_runtime_api.h"

constinit thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

// Saves what a call must leave alone, and goes on where `to` was saved.
extern "C" void TroupeSwitchStacks(void** from, void* to);
asm(R"(
.text
.globl TroupeSwitchStacks
.type TroupeSwitchStacks, @function
TroupeSwitchStacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size TroupeSwitchStacks, .-TroupeSwitchStacks
)");

namespace troupe::gpu_on_host {
namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr int kSavedWords = 6;

// Where so many threads wait until all have come.
struct Meeting {
  unsigned expected = 0, arrived = 0;
  uint64_t round = 0;
};

struct Sent {
  void* to;
  float bytes[4];
  const uint64_t* counter;
};

struct Warp {
  Meeting meeting;
  WarpWords words[2];
};

struct Block {
  dim3 index;
  Meeting meeting;
  std::vector<float4> shared;
  std::vector<Sent> sent;
  std::vector<Warp> warps;
};

struct Thread {
  void* stack_pointer = nullptr;
  std::unique_ptr<char[]> stack;
  Block* block = nullptr;
  Warp* warp = nullptr;
  unsigned index = 0;
  bool done = true;
  // Waits until *word is `value`, or until it is not.
  const uint64_t* word = nullptr;
  uint64_t value = 0;
  bool until_equal = false;

  bool CanRun() const { return !done && (word == nullptr || (*word == value) == until_equal); }
};

// The threads of a cluster.
class Cluster final {
 public:
  void Run(const LaunchShape& shape, unsigned first_block, const std::function<void()>& kernel) {
    kernel_ = &kernel;
    Prepare(shape, first_block);
    size_t left = count_;
    for (bool forward = true; left > 0; forward = !forward) {
      const size_t ended = RunWarps(forward);
      left -= ended;
    }
  }

  static Cluster& Get() {
    static thread_local Cluster cluster;
    return cluster;
  }

  Thread& current() { return *current_; }
  Block& block(int rank) { return blocks_[rank]; }
  Meeting& meeting() { return meeting_; }

  void Wait(const uint64_t* word, uint64_t value, bool until_equal) {
    Thread& thread = *current_;
    thread.word = word;
    thread.value = value;
    thread.until_equal = until_equal;
    if (!thread.CanRun()) TroupeSwitchStacks(&thread.stack_pointer, scheduler_);
    thread.word = nullptr;
  }

  void Meet(Meeting& meeting) {
    const uint64_t round = meeting.round;
    if (++meeting.arrived < meeting.expected) return Wait(&meeting.round, round, false);
    meeting.arrived = 0;
    ++meeting.round;
  }

 private:
  void Prepare(const LaunchShape& shape, unsigned first_block) {
    blockDim = {shape.threads, 1, 1};
    gridDim = {shape.blocks, 1, 1};
    count_ = size_t{shape.cluster} * shape.threads;
    meeting_ = {.expected = static_cast<unsigned>(count_)};
    blocks_.resize(shape.cluster);
    while (threads_.size() < count_) {
      threads_.emplace_back();
      threads_.back().stack.reset(new char[kStackBytes]);  // not touched
    }
    for (unsigned b = 0; b < shape.cluster; ++b) PrepareBlock(shape, first_block, b);
  }

  void PrepareBlock(const LaunchShape& shape, unsigned first_block, unsigned b) {
    Block& block = blocks_[b];
    block.index = {first_block + b, 0, 0};
    block.meeting = {.expected = shape.threads};
    block.shared.resize(shape.shared_bytes / sizeof(float4) + 1);
    std::memset(block.shared.data(), 0xff, block.shared.size() * sizeof(float4));
    block.sent.clear();
    block.warps.assign((shape.threads + 31) / 32, {});
    for (unsigned t = 0; t < shape.threads; ++t) {
      Thread& thread = threads_[b * shape.threads + t];
      thread.block = &block;
      thread.warp = &block.warps[t / 32];
      ++thread.warp->meeting.expected;
      thread.index = t;
      thread.done = false;
      thread.word = nullptr;
      auto** const top = reinterpret_cast<void**>(thread.stack.get() + kStackBytes);
      top[-1] = nullptr;  // nobody called
      top[-2] = reinterpret_cast<void*>(&Cluster::Begin);
      thread.stack_pointer = top - 2 - kSavedWords;
    }
  }

  static void Begin() {
    Cluster& cluster = Get();
    (*cluster.kernel_)();
    Thread& thread = *cluster.current_;
    thread.done = true;
    TroupeSwitchStacks(&thread.stack_pointer, cluster.scheduler_);
  }

  // Each warp goes as far as it comes alone.  Returns how many threads have ended.
  size_t RunWarps(bool forward) {
    size_t ended = 0;
    bool any = false;
    const size_t warps = (count_ + 31) / 32;
    for (size_t i = 0; i < warps; ++i) {
      const size_t first = 32 * (forward ? i : warps - 1 - i);
      const size_t lanes = std::min<size_t>(32, count_ - first);
      for (bool went_on = true; went_on;) {
        went_on = false;
        for (size_t lane = 0; lane < lanes; ++lane) {
          Thread& thread = threads_[first + (forward ? lane : lanes - 1 - lane)];
          if (!thread.CanRun()) continue;
          GoOn(thread);
          ended += thread.done ? 1 : 0;
          any = went_on = true;
        }
      }
    }
    if (any) return ended;
    std::fprintf(stderr, "the threads of block %u and its cluster wait for ever\n",
                 blocks_[0].index.x);
    std::abort();
  }

  void GoOn(Thread& thread) {
    current_ = &thread;
    blockIdx = thread.block->index;
    threadIdx = {thread.index, 0, 0};
    TroupeSwitchStacks(&scheduler_, thread.stack_pointer);
  }

  const std::function<void()>* kernel_ = nullptr;
  void* scheduler_ = nullptr;
  Thread* current_ = nullptr;
  size_t count_ = 0;
  Meeting meeting_;
  std::vector<Block> blocks_;
  std::vector<Thread> threads_;
};

}  // namespace

void RunThreads(const LaunchShape& shape, const std::function<void()>& kernel) {
  for (unsigned block = 0; block < shape.blocks; block += shape.cluster) {
    Cluster::Get().Run(shape, block, kernel);
  }
}

void SyncBlock() { Cluster::Get().Meet(Cluster::Get().current().block->meeting); }

void SyncCluster() { Cluster::Get().Meet(Cluster::Get().meeting()); }

int Lane() { return static_cast<int>(Cluster::Get().current().index % 32); }

const WarpWords& Exchange(const uint32_t* words, int n) {
  Warp& warp = *Cluster::Get().current().warp;
  WarpWords& all = warp.words[warp.meeting.round % 2];
  std::memcpy(all[Lane()], words, n * sizeof(uint32_t));
  Cluster::Get().Meet(warp.meeting);
  return all;
}

void* SharedMemory() { return Cluster::Get().current().block->shared.data(); }

void* InBlock(int rank, const void* local) {
  const auto offset = static_cast<const char*>(local) - static_cast<const char*>(SharedMemory());
  return reinterpret_cast<char*>(Cluster::Get().block(rank).shared.data()) + offset;
}

void SendTo(int rank, void* to, const void* bytes, uint64_t* counter) {
  Sent sent{.to = to, .bytes = {}, .counter = counter};
  std::memcpy(sent.bytes, bytes, sizeof(sent.bytes));
  Cluster::Get().block(rank).sent.push_back(sent);
  *counter -= sizeof(sent.bytes);
}

void AwaitArrivals(const uint64_t* counter) {
  Cluster::Get().Wait(counter, 0, true);
  std::vector<Sent> others;
  for (const Sent& sent : Cluster::Get().current().block->sent) {
    if (sent.counter != counter) {
      others.push_back(sent);
    } else {
      std::memcpy(sent.to, sent.bytes, sizeof(sent.bytes));
    }
  }
  Cluster::Get().current().block->sent.swap(others);
}

}  // namespace troupe::gpu_on_host
