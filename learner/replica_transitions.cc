#include "learner/replica_transitions.h"

#include "absl/functional/function_ref.h"

namespace troupe {

using torch::Tensor;

namespace {

// Of `count` transitions, which `fill` puts into the arrays.
Transitions MakeTransitions(const ReplicaShape& shape, int64_t count,
                            const torch::TensorOptions& tensors,
                            absl::FunctionRef<void(const TransitionArrays&)> fill) {
  const Tensor s = torch::empty({count, shape.observation_size}, torch::kFloat32);
  const Tensor a = torch::empty({count, shape.action_size}, torch::kFloat32);
  const Tensor r = torch::empty({count}, torch::kFloat32);
  const Tensor discount = torch::empty({count}, torch::kFloat32);
  const Tensor s_next = torch::empty({count, shape.observation_size}, torch::kFloat32);
  fill({.s = s.data_ptr<float>(),
        .a = a.data_ptr<float>(),
        .r = r.data_ptr<float>(),
        .discount = discount.data_ptr<float>(),
        .s_next = s_next.data_ptr<float>()});
  return {.s = s.to(tensors),
          .a = a.to(tensors),
          .r = r.to(tensors),
          .gamma = discount.to(tensors),
          .d = torch::zeros({count}, tensors),
          .s_next = s_next.to(tensors)};
}

}  // namespace

Transitions DrawTransitions(const RamReplicaStore& replica, int64_t count, uint64_t seed,
                            const torch::TensorOptions& tensors) {
  return MakeTransitions(replica.shape(), count, tensors, [&](const TransitionArrays& arrays) {
    replica.Draw(count, seed, arrays);
  });
}

Transitions ReadTransitions(const RamReplicaStore& replica, absl::Span<const uint64_t> numbers,
                            const torch::TensorOptions& tensors) {
  return MakeTransitions(replica.shape(), static_cast<int64_t>(numbers.size()), tensors,
                         [&](const TransitionArrays& arrays) { replica.Read(numbers, arrays); });
}

}  // namespace troupe
