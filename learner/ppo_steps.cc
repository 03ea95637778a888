#include "learner/ppo_steps.h"

namespace troupe {

using torch::Tensor;

PpoSteps InSequences(const PpoSteps& unrolls, int64_t unroll_length, int64_t length) {
  return ForAll(unrolls, [&](const Tensor& all) {
    return all.narrow(1, 0, unroll_length).flatten(0, 1).unflatten(0, {-1, length});
  });
}

PpoSteps StepsOf(const PpoSteps& sequences, const Tensor& seen) {
  const Tensor which = sequences.is_step.flatten().nonzero().squeeze(1);
  PpoSteps all = sequences;
  all.s = seen;
  all.memory = all.fresh = all.is_step = Tensor();
  return ForAll(all, [&](const Tensor& t) { return t.flatten(0, 1).index_select(0, which); });
}

}  // namespace troupe
