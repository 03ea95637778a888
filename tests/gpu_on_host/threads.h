#ifndef TROUPE_TESTS_GPU_ON_HOST_THREADS_H_
#define TROUPE_TESTS_GPU_ON_HOST_THREADS_H_

#include <cstddef>
#include <cstdint>
#include <functional>

namespace troupe::gpu_on_host {

// A GPU's threads, taking turns on one thread of this machine: each runs until it waits for others.
// Warps and their lanes take turns in their order and then in the opposite one, so that what
// depends on the order comes out differently.  Shared memory holds no numbers at first.
//
// Each thread of this machine has such a GPU of its own.

struct LaunchShape {
  unsigned blocks = 1, threads = 1, cluster = 1;
  size_t shared_bytes = 0;
};

// Runs all threads of a launch to their ends, one cluster after another.  Ends the process if they
// wait for each other for ever.
void RunThreads(const LaunchShape& shape, const std::function<void()>& kernel);

// The following are for threads of a launch.
void SyncBlock();
void SyncCluster();

inline constexpr int kWordsOfLane = 6;
using WarpWords = uint32_t[32][kWordsOfLane];
// What all lanes of the warp gave.  Valid until the next call.
const WarpWords& Exchange(const uint32_t* words, int n);
int Lane();

// The block's shared memory, and where a place in it lies in that of block `rank` of the cluster.
void* SharedMemory();
void* InBlock(int rank, const void* local);

// 16 bytes on their way to `to`, which lies in block `rank`: they are there once a thread of that
// block has waited until *counter, from which they are subtracted, is 0.
void SendTo(int rank, void* to, const void* bytes, uint64_t* counter);
void AwaitArrivals(const uint64_t* counter);

}  // namespace troupe::gpu_on_host

#endif  // TROUPE_TESTS_GPU_ON_HOST_THREADS_H_
