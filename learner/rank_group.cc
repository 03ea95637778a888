#include "learner/rank_group.h"

#if defined(TROUPE_GLOO) || defined(TROUPE_NCCL)
#include <spdlog/spdlog.h>
#include <torch/torch.h>

#include <chrono>
#ifdef TROUPE_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#ifdef TROUPE_NCCL
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <optional>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#endif

namespace troupe {

#if defined(TROUPE_GLOO) || defined(TROUPE_NCCL)

namespace {

using torch::Tensor;

// How long one attempt waits for rank 0.
constexpr absl::Duration kAttempt = absl::Seconds(5);
constexpr absl::Duration kBetweenLooks = absl::Milliseconds(20);
constexpr absl::Duration kBetweenAttempts = absl::Milliseconds(200);
constexpr absl::Duration kBetweenMessages = absl::Seconds(10);

struct HostPort {
  std::string host;
  uint16_t port;
};

absl::StatusOr<HostPort> ParseRendezvous(const std::string& text) {
  const size_t colon = text.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(absl::string_view(text).substr(colon + 1), &port) || port < 1 ||
      port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("learner.rendezvous '", text, "': must be host:port"));
  }
  return HostPort{text.substr(0, colon), static_cast<uint16_t>(port)};
}

// The first line; a backtrace follows.
std::string WhatOf(const std::exception& e) {
  const std::string what = e.what();
  return what.substr(0, what.find('\n'));
}

// The store that rank 0 serves.  Throws what c10d throws.
c10::intrusive_ptr<c10d::Store> OpenStore(const RankOptions& options, const HostPort& rendezvous) {
  c10d::TCPStoreOptions how;
  how.port = rendezvous.port;
  how.isServer = options.rank == 0;
  how.waitWorkers = false;
  how.timeout = absl::ToChronoMilliseconds(kAttempt);
  return c10::make_intrusive<c10d::TCPStore>(rendezvous.host, how);
}

// False if `stopped` first.  Throws what c10d throws.
bool AwaitAll(c10d::Store& store, const RankOptions& options,
              const std::function<bool()>& stopped) {
  std::vector<std::string> keys;
  for (int rank = 0; rank < options.size; ++rank) keys.push_back(absl::StrCat("rank-", rank));
  store.set(keys[options.rank], std::vector<uint8_t>{1});
  while (!store.check(keys)) {
    if (stopped()) return false;
    absl::SleepFor(kBetweenLooks);
  }
  return true;
}

using StorePtr = c10::intrusive_ptr<c10d::Store>;

#ifdef TROUPE_GLOO
using GlooPtr = c10::intrusive_ptr<c10d::ProcessGroupGloo>;

// Throws what c10d throws.
GlooPtr MakeGloo(const RankOptions& options, const HostPort& rendezvous, StorePtr store) {
  auto how = c10d::ProcessGroupGloo::Options::create(absl::ToChronoMilliseconds(options.timeout));
  how->devices.push_back(rendezvous.host == "127.0.0.1" || rendezvous.host == "localhost"
                             ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                             : c10d::ProcessGroupGloo::createDefaultDevice());
  return c10::make_intrusive<c10d::ProcessGroupGloo>(std::move(store), options.rank, options.size,
                                                     how);
}
#endif

#ifdef TROUPE_NCCL
using NcclPtr = c10::intrusive_ptr<c10d::ProcessGroupNCCL>;

// Throws what c10d throws.
NcclPtr MakeNccl(const RankOptions& options, StorePtr store) {
  auto how = c10d::ProcessGroupNCCL::Options::create();
  how->timeout = absl::ToChronoMilliseconds(options.timeout);
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(std::move(store), options.rank, options.size,
                                                     how);
}
#endif

// Over c10d's `Group`, whose tensors lie on `device`; what is the host's passes through it.
template <typename Group>
class C10dRanks final : public RankGroup {
 public:
  // REQUIRES: every rank is there.
  C10dRanks(const RankOptions& options, const torch::Device& device, Group group)
      : options_(options), device_(device), group_(std::move(group)) {}

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }

  absl::Status Sum(absl::Span<float> values) override {
    return AllReduce(torch::from_blob(values.data(), {static_cast<int64_t>(values.size())}),
                     c10d::ReduceOp::SUM);
  }

  absl::Status Sum(absl::Span<double> values) override {
    return AllReduce(
        torch::from_blob(values.data(), {static_cast<int64_t>(values.size())}, torch::kFloat64),
        c10d::ReduceOp::SUM);
  }

  absl::Status SumOnDevice(float* values, int64_t n, void* stream) override {
    if (device_.is_cpu()) return RankGroup::SumOnDevice(values, n, stream);
#ifdef TROUPE_NCCL
    std::optional<c10::cuda::CUDAStreamGuard> guard;
    if (stream != nullptr) {
      guard.emplace(c10::cuda::getStreamFromExternal(static_cast<cudaStream_t>(stream),
                                                     std::max<int>(device_.index(), 0)));
    }
#endif
    return AllReduce(
        torch::from_blob(values, {n}, torch::TensorOptions(torch::kFloat32).device(device_)),
        c10d::ReduceOp::SUM);
  }

  absl::StatusOr<int64_t> Least(int64_t value) override {
    const absl::Status status =
        AllReduce(torch::from_blob(&value, {1}, torch::kInt64), c10d::ReduceOp::MIN);
    if (!status.ok()) return status;
    return value;
  }

  absl::StatusOr<std::string> FromFirst(std::string bytes) override {
    auto size = static_cast<int64_t>(bytes.size());
    absl::Status status = Broadcast(torch::from_blob(&size, {1}, torch::kInt64));
    if (!status.ok()) return status;
    bytes.resize(size);
    if (size > 0) status = Broadcast(torch::from_blob(bytes.data(), {size}, torch::kUInt8));
    if (!status.ok()) return status;
    return bytes;
  }

 private:
  absl::Status AllReduce(const Tensor& values, c10d::ReduceOp operation) {
    c10d::AllreduceOptions how;
    how.reduceOp = operation;
    return Await([&](std::vector<Tensor>& tensors) { return group_->allreduce(tensors, how); },
                 values);
  }

  absl::Status Broadcast(const Tensor& values) {
    return Await([&](std::vector<Tensor>& tensors) { return group_->broadcast(tensors); }, values);
  }

  template <typename Begin>
  absl::Status Await(const Begin& begin, const Tensor& values) {
    try {
      const torch::NoGradGuard no_grad;
      std::vector<Tensor> tensors = {values.to(device_)};
      begin(tensors)->wait();
      if (values.device() != tensors[0].device()) values.copy_(tensors[0]);
      return absl::OkStatus();
    } catch (const std::exception& e) {
      return absl::UnavailableError(absl::StrCat("rank ", rank(), " of ", size(),
                                                 " learners: another one is gone: ", WhatOf(e)));
    }
  }

  const RankOptions options_;
  const torch::Device device_;
  const Group group_;
};

// Null: this build has not what the device wants.  Throws what c10d throws.
std::unique_ptr<RankGroup> MakeGroup(const RankOptions& options, const HostPort& rendezvous,
                                     StorePtr store) {
  const torch::Device device(options.device);
#ifdef TROUPE_NCCL
  if (device.is_cuda()) {
    return std::make_unique<C10dRanks<NcclPtr>>(options, device,
                                                MakeNccl(options, std::move(store)));
  }
#endif
#ifdef TROUPE_GLOO
  // Without NCCL what a GPU has to sum passes through the host's memory.
  return std::make_unique<C10dRanks<GlooPtr>>(options, torch::kCPU,
                                              MakeGloo(options, rendezvous, std::move(store)));
#else
  return nullptr;
#endif
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankGroup>> JoinRanks(const RankOptions& options,
                                                     const std::function<bool()>& stopped) {
  const absl::StatusOr<HostPort> rendezvous = ParseRendezvous(options.rendezvous);
  if (!rendezvous.ok()) return rendezvous.status();
  absl::Time next_message = absl::InfinitePast();
  while (!stopped()) {
    try {
      auto store = OpenStore(options, *rendezvous);
      if (!AwaitAll(*store, options, stopped)) break;
      std::unique_ptr<RankGroup> group = MakeGroup(options, *rendezvous, std::move(store));
      if (group != nullptr) return group;
      return absl::UnimplementedError(absl::StrCat("this build has no c10d for learner.device '",
                                                   options.device,
                                                   "', so no learner.ranks above 1"));
    } catch (const std::exception& e) {
      if (absl::Now() >= next_message) {
        spdlog::info("rank {} of {}: no other learners at {} yet: {}", options.rank, options.size,
                     options.rendezvous, WhatOf(e));
        next_message = absl::Now() + kBetweenMessages;
      }
      absl::SleepFor(kBetweenAttempts);
    }
  }
  return absl::CancelledError("stopped before all learners had come");
}

#else

absl::StatusOr<std::unique_ptr<RankGroup>> JoinRanks(const RankOptions& options,
                                                     const std::function<bool()>& stopped) {
  return absl::UnimplementedError("this build has no c10d, so no learner.ranks above 1");
}

#endif

}  // namespace troupe
