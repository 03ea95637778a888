#ifndef TROUPE_LEARNER_PPO_STEPS_H_
#define TROUPE_LEARNER_PPO_STEPS_H_

#include <torch/torch.h>

#include <cstdint>

namespace troupe {

// What PPO learns from, on the device: N steps one after another or, for a policy with a memory, N
// sequences of L rows, so that each tensor has an axis more and some rows may be no steps.
struct PpoSteps {
  torch::Tensor s;          // [N, observation_size], normalized; before images' features
  torch::Tensor a;          // [N, action_size]
  torch::Tensor log_mu;     // [N]
  torch::Tensor advantage;  // [N]
  torch::Tensor target;     // [N], of the value
  torch::Tensor v_old;      // [N]
  torch::Tensor old_head;   // [N, head], what the network said before the first update; undefined
                            // where the exact KL is not wanted
  // Sequences only: RowSequences' `stored` and `fresh`; which rows are steps, [N, L] bool.
  torch::Tensor memory, fresh, is_step;
  // Images only: which of `frames` each step sees, [N, frame_stack]; and those, of all steps, uint8
  // [rows, height, width, channels].
  torch::Tensor stacks, frames;

  bool in_sequences() const { return is_step.defined(); }
  int64_t size() const { return s.size(0); }
};

// `pick` of every tensor of steps that there is.
template <typename Pick>
PpoSteps ForAll(const PpoSteps& steps, Pick pick) {
  const auto of = [&](const torch::Tensor& tensor) {
    return tensor.defined() ? pick(tensor) : tensor;
  };
  return {of(steps.s),      of(steps.a),       of(steps.log_mu),   of(steps.advantage),
          of(steps.target), of(steps.v_old),   of(steps.old_head), of(steps.memory),
          of(steps.fresh),  of(steps.is_step), of(steps.stacks),   steps.frames};
}

// `unrolls`, [B, T or more, ...], cut into sequences of `length` rows, of which T is a multiple.
PpoSteps InSequences(const PpoSteps& unrolls, int64_t unroll_length, int64_t length);

// Those of sequences that are steps, one after another; `seen`: their s, [N, L, inputs], as the
// networks see them.
PpoSteps StepsOf(const PpoSteps& sequences, const torch::Tensor& seen);

}  // namespace troupe

#endif  // TROUPE_LEARNER_PPO_STEPS_H_
