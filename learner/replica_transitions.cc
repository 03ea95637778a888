#include "learner/replica_transitions.h"

namespace troupe {

using torch::Tensor;

Transitions DrawTransitions(const RamReplicaStore& replica, int64_t count, uint64_t seed,
                            const torch::TensorOptions& tensors) {
  const ReplicaShape& shape = replica.shape();
  const Tensor s = torch::empty({count, shape.observation_size}, torch::kFloat32);
  const Tensor a = torch::empty({count, shape.action_size}, torch::kFloat32);
  const Tensor r = torch::empty({count}, torch::kFloat32);
  const Tensor discount = torch::empty({count}, torch::kFloat32);
  const Tensor s_next = torch::empty({count, shape.observation_size}, torch::kFloat32);
  replica.Draw(count, seed,
               {.s = s.data_ptr<float>(),
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

}  // namespace troupe
