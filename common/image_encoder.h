#ifndef TROUPE_COMMON_IMAGE_ENCODER_H_
#define TROUPE_COMMON_IMAGE_ENCODER_H_

#include <torch/torch.h>

#include <cstdint>
#include <vector>

#include "common/flat_parameters.h"
#include "common/policy.h"
#include "proto/config.pb.h"

namespace troupe {

// What makes features of stacks of images: convolutions, each with a ReLU, and a linear layer.  Its
// parameters are those of the convolutions (encoder.conv.I.weight [out, in, size, size] and .bias
// [out]), which several networks may share, and then the rest (encoder.linear.weight [in, features]
// and .bias; with layer_norm encoder.norm.weight and .bias).
struct ImageEncoderShape {
  proto::ImageEncoder spec;                     // defaults written out
  int64_t height = 0, width = 0, channels = 0;  // of one frame; 0: there are no images
  bool layer_norm = false;  // LayerNorm and tanh follow the linear layer (SAC), else a ReLU (PPO)

  bool has_images() const { return channels > 0; }
  int64_t features() const { return has_images() ? spec.features() : 0; }
};

// The network's part of `spec` with defaults written out; `for_sac`: SAC's, else PPO's.
proto::ImageEncoder WithEncoderDefaults(const proto::ImageEncoder& spec, bool for_sac);

// The encoder of a policy.
ImageEncoderShape EncoderOf(const PolicyMetadata& metadata);

// INVALID_ARGUMENT if an image is smaller than a convolution's kernel, or the layers of one stack
// of images would have more numbers than anybody means.
absl::Status CheckEncoder(const ImageEncoderShape& shape);

// Both are empty where there are no images.  REQUIRES: CheckEncoder() is OK.
std::vector<ParameterSpec> ConvolutionParameters(const ImageEncoderShape& shape);
std::vector<ParameterSpec> FeatureParameters(const ImageEncoderShape& shape);

// What the convolutions make of `images`, uint8 [B, frame_stack, height, width, channels], the
// oldest frame first: [B, n].  `parameters`: the first of ConvolutionParameters.
torch::Tensor Convolve(const ImageEncoderShape& shape, const torch::Tensor* parameters,
                       const torch::Tensor& images);
// And the rest of that: [B, features].  `parameters`: the first of FeatureParameters.
torch::Tensor Features(const ImageEncoderShape& shape, const torch::Tensor* parameters,
                       const torch::Tensor& convolved);

}  // namespace troupe

#endif  // TROUPE_COMMON_IMAGE_ENCODER_H_
