#ifndef TROUPE_LEARNER_FUSED_LAYER_NORM_H_
#define TROUPE_LEARNER_FUSED_LAYER_NORM_H_

namespace troupe {

// LayerNorm (Ba et al., arXiv 1607.06450) adds it to a row's variance, in every fused engine.
inline constexpr float kNormEpsilon = 1e-5f;

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_LAYER_NORM_H_
