// What a selector costs in process, without rows or network.  The argument is the number of
// windows; time per window is in the column "per_window".
//   selector_bench [--benchmark_filter=Prioritized]
#include <benchmark/benchmark.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "replay_server/selectors/interface.h"

namespace troupe {
namespace {

constexpr int64_t kBatch = 256;

std::unique_ptr<Selector> NewPrioritized0(uint32_t num_blocks) {
  return NewPrioritizedSelector(num_blocks, 0);
}
std::unique_ptr<Selector> NewPrioritized06(uint32_t num_blocks) {
  return NewPrioritizedSelector(num_blocks, 0.6);
}
std::unique_ptr<Selector> NewPrioritized1(uint32_t num_blocks) {
  return NewPrioritizedSelector(num_blocks, 1);
}

using Maker = std::unique_ptr<Selector> (*)(uint32_t num_blocks);

// Full of windows of random priorities.
std::unique_ptr<Selector> MakeFull(Maker maker, int64_t num_windows) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> priority(0, 1);
  const auto num_blocks = static_cast<uint32_t>(num_windows / 64);
  auto selector = maker(num_blocks);
  std::vector<float> priorities(64);
  for (uint32_t block = 0; block < num_blocks; ++block) {
    for (float& value : priorities) value = priority(random);
    selector->Add(block, ~uint64_t{0}, priorities);
  }
  return selector;
}

void SetPerWindow(int64_t windows_per_iteration, benchmark::State* state) {
  const auto windows = static_cast<double>(state->iterations() * windows_per_iteration);
  state->counters["per_window"] =
      benchmark::Counter(windows, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void Select(benchmark::State& state, Maker maker) {
  const auto selector = MakeFull(maker, state.range(0));
  absl::InsecureBitGen random;
  std::vector<Selection> selections;
  for (auto _ : state) {
    selections.clear();
    selector->Select(kBatch, random, &selections);
    benchmark::DoNotOptimize(selections.data());
  }
  SetPerWindow(kBatch, &state);
}

// Of windows drawn before the clock starts, as a learner's updates are.
void SetPriorities(benchmark::State& state, Maker maker) {
  const auto selector = MakeFull(maker, state.range(0));
  std::mt19937_64 random(1);
  std::vector<std::vector<PriorityChange>> batches(1024, std::vector<PriorityChange>(kBatch));
  for (auto& batch : batches) {
    for (PriorityChange& change : batch) {
      const uint64_t place = random() % (state.range(0) / 64 * 64);
      change = {static_cast<uint32_t>(place / 64), static_cast<uint32_t>(place % 64),
                static_cast<float>(random() % 1000) / 1000};
    }
  }
  size_t next = 0;
  for (auto _ : state) selector->SetPriorities(batches[next++ % batches.size()]);
  SetPerWindow(kBatch, &state);
}

// A full table goes round: a block leaves, and its 64 windows come again, so many a call.
void Turnover(benchmark::State& state, Maker maker, uint32_t windows_per_add) {
  const auto selector = MakeFull(maker, state.range(0));
  const std::vector<float> priorities(64, 0.7f);
  const auto num_blocks = static_cast<uint32_t>(state.range(0) / 64);
  const uint64_t first = windows_per_add == 64 ? ~uint64_t{0} : (1ull << windows_per_add) - 1;
  uint32_t block = 0;
  for (auto _ : state) {
    selector->Remove(block, ~uint64_t{0});
    for (uint32_t slot = 0; slot < 64; slot += windows_per_add) {
      selector->Add(block, first << slot, priorities);
    }
    block = (block + 1) % num_blocks;
  }
  SetPerWindow(64, &state);
}

void Sizes(benchmark::internal::Benchmark* bench) {
  for (const int64_t size : {100'000, 1'000'000, 10'000'000}) bench->Arg(size);
}

void RegisterAll() {
  const std::vector<std::pair<std::string, Maker>> makers = {{"Uniform", NewUniformSelector},
                                                             {"Fifo", NewFifoSelector},
                                                             {"Lifo", NewLifoSelector},
                                                             {"Prioritized/0", NewPrioritized0},
                                                             {"Prioritized/0.6", NewPrioritized06},
                                                             {"Prioritized/1", NewPrioritized1},
                                                             {"MaxHeap", NewMaxHeapSelector}};
  for (const auto& [name, maker] : makers) {
    benchmark::RegisterBenchmark(absl::StrCat(name, "/Select").c_str(), Select, maker)
        ->Apply(Sizes);
    for (const uint32_t windows : {1, 8, 64}) {
      benchmark::RegisterBenchmark(absl::StrCat(name, "/Turnover", windows).c_str(), Turnover,
                                   maker, windows)
          ->Apply(Sizes);
    }
    if (!maker(1)->UsesPriorities()) continue;
    benchmark::RegisterBenchmark(absl::StrCat(name, "/SetPriorities").c_str(), SetPriorities, maker)
        ->Apply(Sizes);
  }
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  troupe::RegisterAll();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
