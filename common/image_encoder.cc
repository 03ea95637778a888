#include "common/image_encoder.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/mlp.h"

namespace troupe {
namespace {

using torch::Tensor;

// Numbers in one layer for one stack of images, at most.
constexpr int64_t kMaxActivations = int64_t{1} << 26;
constexpr double kLayerNormEpsilon = 1e-5;
constexpr int kPpoFeatures = 512;
constexpr int kSacFeatures = 50;

// A layer's input or output.
struct Planes {
  int64_t channels, height, width;
  int64_t size() const { return channels * height * width; }
};

Planes InputOf(const ImageEncoderShape& shape) {
  return {shape.spec.frame_stack() * shape.channels, shape.height, shape.width};
}

Planes After(const Planes& in, const proto::Convolution& layer) {
  const auto places = [&](int64_t length) {
    return length < layer.kernel_size() ? 0 : (length - layer.kernel_size()) / layer.stride() + 1;
  };
  return {layer.channels(), places(in.height), places(in.width)};
}

void AddLayer(proto::ImageEncoder& spec, int channels, int kernel_size, int stride) {
  proto::Convolution& layer = *spec.add_layers();
  layer.set_channels(channels);
  layer.set_kernel_size(kernel_size);
  layer.set_stride(stride);
}

void AddDefaultLayers(bool for_sac, proto::ImageEncoder& spec) {
  if (!for_sac) {
    AddLayer(spec, 32, 8, 4);
    AddLayer(spec, 64, 4, 2);
    AddLayer(spec, 64, 3, 1);
    return;
  }
  AddLayer(spec, 32, 3, 2);
  for (int i = 0; i < 3; ++i) AddLayer(spec, 32, 3, 1);
}

}  // namespace

proto::ImageEncoder WithEncoderDefaults(const proto::ImageEncoder& spec, bool for_sac) {
  proto::ImageEncoder network;
  for (const proto::Convolution& layer : spec.layers()) {
    AddLayer(network, layer.channels(), layer.kernel_size(), layer.stride());
  }
  if (spec.layers().empty()) AddDefaultLayers(for_sac, network);
  const int features = for_sac ? kSacFeatures : kPpoFeatures;
  network.set_features(spec.has_features() ? spec.features() : features);
  network.set_frame_stack(spec.frame_stack());
  return network;
}

ImageEncoderShape EncoderOf(const PolicyMetadata& metadata) {
  if (metadata.image_shape.empty()) return {};
  return {.spec = metadata.encoder,
          .height = metadata.image_shape[0],
          .width = metadata.image_shape[1],
          .channels = metadata.image_shape[2],
          .layer_norm = metadata.distribution == Distribution::kSquashedGaussian};
}

absl::Status CheckEncoder(const ImageEncoderShape& shape) {
  if (!shape.has_images()) return absl::OkStatus();
  Planes planes = InputOf(shape);
  if (shape.spec.layers().empty() || planes.size() > kMaxActivations) {
    return absl::InvalidArgumentError(
        absl::StrCat("stacks of images of ", planes.size(), " numbers, at most ", kMaxActivations,
                     ", and ", shape.spec.layers_size(), " convolutions, at least 1"));
  }
  for (int i = 0; i < shape.spec.layers_size(); ++i) {
    const Planes next = After(planes, shape.spec.layers(i));
    if (next.height == 0 || next.width == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "images of ", shape.height, "x", shape.width, " are ", planes.height, "x", planes.width,
          " at convolution ", i, ", whose kernel_size is ", shape.spec.layers(i).kernel_size()));
    }
    if (next.size() > kMaxActivations) {
      return absl::InvalidArgumentError(absl::StrCat("convolution ", i, " makes ", next.size(),
                                                     " numbers of one stack of images, more than ",
                                                     kMaxActivations));
    }
    planes = next;
  }
  return absl::OkStatus();
}

std::vector<ParameterSpec> ConvolutionParameters(const ImageEncoderShape& shape) {
  std::vector<ParameterSpec> specs;
  if (!shape.has_images()) return specs;
  int64_t in = InputOf(shape).channels;
  for (int i = 0; i < shape.spec.layers_size(); ++i) {
    const proto::Convolution& layer = shape.spec.layers(i);
    const std::string name = absl::StrCat("encoder.conv.", i);
    specs.push_back({.name = name + ".weight",
                     .shape = {layer.channels(), in, layer.kernel_size(), layer.kernel_size()},
                     .orthogonal_gain = std::sqrt(2.0)});
    specs.push_back({.name = name + ".bias", .shape = {layer.channels()}});
    in = layer.channels();
  }
  return specs;
}

std::vector<ParameterSpec> FeatureParameters(const ImageEncoderShape& shape) {
  if (!shape.has_images()) return {};
  Planes planes = InputOf(shape);
  for (const proto::Convolution& layer : shape.spec.layers()) planes = After(planes, layer);
  const int64_t features = shape.features();
  std::vector<ParameterSpec> specs = {{.name = "encoder.linear.weight",
                                       .shape = {planes.size(), features},
                                       .orthogonal_gain = shape.layer_norm ? 1 : std::sqrt(2.0)},
                                      {.name = "encoder.linear.bias", .shape = {features}}};
  if (shape.layer_norm) {
    specs.push_back({.name = "encoder.norm.weight", .shape = {features}, .init_value = 1});
    specs.push_back({.name = "encoder.norm.bias", .shape = {features}});
  }
  return specs;
}

Tensor Convolve(const ImageEncoderShape& shape, const Tensor* parameters, const Tensor& images) {
  // [B, frames * channels, height, width]
  Tensor x = images.permute({0, 1, 4, 2, 3})
                 .to(parameters[0].scalar_type())
                 .reshape({images.size(0), -1, shape.height, shape.width})
                 .div_(255);
  for (const proto::Convolution& layer : shape.spec.layers()) {
    x = torch::conv2d(x, parameters[0], parameters[1], layer.stride()).relu_();
    parameters += 2;
  }
  return x.flatten(1);
}

Tensor Features(const ImageEncoderShape& shape, const Tensor* parameters, const Tensor& convolved) {
  const Tensor x = torch::addmm(parameters[1], convolved, parameters[0]);
  if (!shape.layer_norm) return torch::relu(x);
  return torch::layer_norm(x, {shape.features()}, parameters[2], parameters[3], kLayerNormEpsilon)
      .tanh_();
}

}  // namespace troupe
