#ifndef TROUPE_COMMON_NORMALIZER_H_
#define TROUPE_COMMON_NORMALIZER_H_

#include <torch/torch.h>

namespace troupe {

// Brings observations to mean 0 and standard deviation 1, as a policy's snapshot says.  Actor and
// learner compute it by this one function, so that they mean the same policy.
struct Normalizer {
  torch::Tensor mean, inverse_std;  // [observation_size]
  double clip = 0;                  // the result is within +-clip; 0: not clipped

  // `observations`: [..., observation_size].
  torch::Tensor Apply(const torch::Tensor& observations) const {
    const torch::Tensor x = (observations - mean) * inverse_std;
    return clip > 0 ? x.clamp(-clip, clip) : x;
  }
};

}  // namespace troupe

#endif  // TROUPE_COMMON_NORMALIZER_H_
