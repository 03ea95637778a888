// Policies that see images, against the same network computed one number at a time.
#include <algorithm>
#include <cmath>

#include "common/image_encoder.h"
#include "common/policy.h"
#include "common/policy_codec.h"
#include "common/safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using testing::HasSubstr;

constexpr int64_t kFrames = 2, kHeight = 9, kWidth = 8, kChannels = 3;
constexpr int64_t kStackBytes = kFrames * kHeight * kWidth * kChannels;

PolicyMetadata Metadata(Distribution distribution, int64_t observation_size) {
  PolicyMetadata metadata;
  metadata.run = "pixels";
  metadata.version = 7;
  metadata.observation_size = observation_size;
  metadata.action_size = 2;
  metadata.distribution = distribution;
  metadata.action_low = {-1, -1};
  metadata.action_high = {1, 1};
  if (distribution == Distribution::kCategorical) metadata.num_choices = {3, 2};
  metadata.network.add_hidden_sizes(6);
  metadata.log_std_min = -20;
  metadata.log_std_max = 2;
  metadata.image_shape = {kHeight, kWidth, kChannels};
  proto::ImageEncoder encoder;
  encoder.set_frame_stack(kFrames);
  encoder.set_features(5);
  for (const int stride : {2, 1}) {
    proto::Convolution& layer = *encoder.add_layers();
    layer.set_channels(4);
    layer.set_kernel_size(3 - stride / 2);
    layer.set_stride(stride);
  }
  metadata.encoder = encoder;
  return metadata;
}

FlatParameters Network(const PolicyMetadata& metadata) {
  FlatParameters network(PolicyParameters(metadata), torch::kFloat32);
  network.Initialize(3);
  at::Generator generator = at::globalContext().defaultGenerator(torch::kCPU).clone();
  generator.set_current_seed(5);
  network.values().add_(torch::empty_like(network.values()).normal_(0, 0.05, generator));
  return network;
}

std::string Image(const PolicyMetadata& metadata) {
  return EncodePolicy(metadata, Network(metadata)).value();
}

std::vector<uint8_t> Stacks(int64_t n) {
  std::vector<uint8_t> bytes(n * kStackBytes);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 37 % 251);
  return bytes;
}

// The encoder's value for one stack, written as its definition reads.
class PlainEncoder final {
 public:
  explicit PlainEncoder(const PolicyMetadata& metadata)
      : metadata_(metadata), image_(Image(metadata)), tensors_(*Safetensors::Parse(image_)) {}

  std::vector<double> Features(const uint8_t* stack) const {
    std::vector<double> planes(kStackBytes);  // [channels of the stack, height, width]
    int64_t channels = kFrames * kChannels, height = kHeight, width = kWidth;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t p = 0; p < height * width; ++p) {
        planes[c * height * width + p] =
            stack[(c / kChannels * height * width + p) * kChannels + c % kChannels] / 255.0;
      }
    }
    for (int i = 0; i < metadata_.encoder.layers_size(); ++i) {
      planes = Convolution(i, planes, channels, height, width);
    }
    return Linear(planes);
  }

 private:
  const float* Find(const std::string& name) const {
    const std::string& bytes_of = "actor.encoder." + name;
    return reinterpret_cast<const float*>(tensors_.tensors().at(bytes_of).bytes.data());
  }

  std::vector<double> Convolution(int i, const std::vector<double>& in, int64_t& channels,
                                  int64_t& height, int64_t& width) const {
    const proto::Convolution& layer = metadata_.encoder.layers(i);
    const std::string name = "conv." + std::to_string(i);
    const float *weight = Find(name + ".weight"), *bias = Find(name + ".bias");
    const int64_t k = layer.kernel_size(), stride = layer.stride();
    const int64_t out_height = (height - k) / stride + 1, out_width = (width - k) / stride + 1;
    std::vector<double> out;
    for (int64_t o = 0; o < layer.channels(); ++o) {
      for (int64_t p = 0; p < out_height * out_width; ++p) {
        double sum = bias[o];
        for (int64_t j = 0; j < channels * k * k; ++j) {
          const int64_t y = p / out_width * stride + j / k % k, x = p % out_width * stride + j % k;
          sum += weight[o * channels * k * k + j] * in[(j / (k * k) * height + y) * width + x];
        }
        out.push_back(std::max(sum, 0.0));
      }
    }
    channels = layer.channels();
    height = out_height;
    width = out_width;
    return out;
  }

  std::vector<double> Linear(const std::vector<double>& in) const {
    const int64_t n = metadata_.encoder.features();
    const float *weight = Find("linear.weight"), *bias = Find("linear.bias");
    std::vector<double> out(bias, bias + n);
    for (size_t i = 0; i < in.size(); ++i) {
      for (int64_t j = 0; j < n; ++j) out[j] += in[i] * weight[i * n + j];
    }
    if (metadata_.distribution != Distribution::kSquashedGaussian) {
      for (double& x : out) x = std::max(x, 0.0);
      return out;
    }
    double mean = 0, variance = 1e-5;
    for (const double x : out) mean += x / n;
    for (const double x : out) variance += (x - mean) * (x - mean) / n;
    for (int64_t j = 0; j < n; ++j) {
      out[j] = std::tanh((out[j] - mean) / std::sqrt(variance) * Find("norm.weight")[j] +
                         Find("norm.bias")[j]);
    }
    return out;
  }

  const PolicyMetadata metadata_;
  const std::string image_;
  const Safetensors tensors_;
};

// What the network makes of a vector and a stack.
torch::Tensor HeadOf(const PolicyMetadata& metadata, const std::vector<float>& vector,
                     const std::vector<double>& features) {
  std::vector<float> inputs = vector;
  inputs.insert(inputs.end(), features.begin(), features.end());
  const FlatParameters network = Network(metadata);
  return MlpForward(PolicyShape(metadata), network.frozen(), torch::tensor(inputs).unsqueeze(0))[0];
}

class ImagePolicyTest : public testing::TestWithParam<std::pair<Distribution, int64_t>> {};

TEST_P(ImagePolicyTest, ItsForwardIsTheDefinitionsOneNumberAtATime) {
  const auto [distribution, observation_size] = GetParam();
  const PolicyMetadata metadata = Metadata(distribution, observation_size);
  const auto policy = Policy::FromImage(Image(metadata));
  ASSERT_TRUE(policy.ok()) << policy.status();
  const int64_t n = 3;
  const std::vector<uint8_t> stacks = Stacks(n);
  std::vector<float> observations(n * observation_size), actions(2 * n);
  for (size_t i = 0; i < observations.size(); ++i) observations[i] = std::sin(1.0f + i);
  const absl::Status status = (*policy)->Mode(observations, n, absl::MakeSpan(actions), {}, stacks);
  ASSERT_TRUE(status.ok()) << status;
  const PlainEncoder plain(metadata);
  for (int64_t i = 0; i < n; ++i) {
    const auto vector = observations.begin() + i * observation_size;
    const torch::Tensor head = HeadOf(metadata, {vector, vector + observation_size},
                                      plain.Features(stacks.data() + i * kStackBytes));
    for (int64_t j = 0; j < 2; ++j) {
      if (distribution == Distribution::kCategorical) {
        const torch::Tensor logits = j == 0 ? head.narrow(0, 0, 3) : head.narrow(0, 3, 2);
        EXPECT_EQ(actions[2 * i + j], logits.argmax().item<double>());
        continue;
      }
      const double mean = head[j].item<double>();
      const bool squashed = distribution == Distribution::kSquashedGaussian;
      EXPECT_NEAR(actions[2 * i + j], squashed ? std::tanh(mean) : std::clamp(mean, -1.0, 1.0),
                  1e-5);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ImagePolicyTest,
                         testing::Values(std::pair(Distribution::kSquashedGaussian, 0),
                                         std::pair(Distribution::kSquashedGaussian, 4),
                                         std::pair(Distribution::kGaussian, 0),
                                         std::pair(Distribution::kCategorical, 2)));

TEST(ImagePolicyTest, MetadataComesBackAsItWas) {
  const PolicyMetadata metadata = Metadata(Distribution::kGaussian, 0);
  const auto policy = Policy::FromImage(Image(metadata));
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ((*policy)->metadata().image_shape, metadata.image_shape);
  EXPECT_EQ((*policy)->metadata().encoder.SerializeAsString(),
            metadata.encoder.SerializeAsString());
  EXPECT_EQ((*policy)->metadata().observation_size, 0);
}

TEST(ImagePolicyTest, SampleWantsAsManyImagesAsObservations) {
  const auto policy = Policy::FromImage(Image(Metadata(Distribution::kGaussian, 0)));
  std::vector<float> actions(4), rows(4), log_probs(2);
  const ActionSpans spans{absl::MakeSpan(actions), absl::MakeSpan(rows), absl::MakeSpan(log_probs)};
  EXPECT_TRUE((*policy)->Sample({}, 2, spans, {}, Stacks(2)).ok());
  const absl::Status status = (*policy)->Sample({}, 2, spans, {}, Stacks(1));
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(kStackBytes)));
}

TEST(ImagePolicyTest, DefaultsAreTheNetworksOfThePapers) {
  const proto::ImageEncoder ppo = WithEncoderDefaults({}, false);
  const ImageEncoderShape atari{.spec = ppo, .height = 84, .width = 84, .channels = 4};
  EXPECT_EQ(FeatureParameters(atari)[0].shape, (std::vector<int64_t>{3136, 512}));
  const ImageEncoderShape drq{.spec = WithEncoderDefaults({}, true),
                              .height = 84,
                              .width = 84,
                              .channels = 9,
                              .layer_norm = true};
  EXPECT_EQ(FeatureParameters(drq)[0].shape, (std::vector<int64_t>{39200, 50}));
}

// What `change` makes of a good image's metadata or tensors is refused with `wanted` in the
// message.
std::string RefusalOf(const std::function<void(Safetensors&, std::map<std::string, std::string>&,
                                               std::vector<TensorView>&)>& change) {
  const std::string good = Image(Metadata(Distribution::kSquashedGaussian, 0));
  Safetensors parsed = *Safetensors::Parse(good);
  std::map<std::string, std::string> metadata = parsed.metadata();
  std::vector<TensorView> tensors;
  for (const auto& [name, tensor] : parsed.tensors()) tensors.push_back(tensor);
  change(parsed, metadata, tensors);
  const auto policy = Policy::FromImage(EncodeSafetensors(tensors, metadata).value());
  EXPECT_TRUE(absl::IsInvalidArgument(policy.status())) << policy.status();
  return std::string(policy.status().message());
}

TEST(ImagePolicyTest, AnEncoderThatDoesNotFitIsRefusedByName) {
  const auto with = [](const std::string& key, const std::string& value) {
    return RefusalOf([&](auto&, auto& metadata, auto&) { metadata[key] = value; });
  };
  EXPECT_THAT(with("image_shape", "[9, 8]"), HasSubstr("image_shape"));
  EXPECT_THAT(with("image_shape", "[9, 8, -1]"), HasSubstr("image_shape"));
  EXPECT_THAT(with("image_shape", "[2, 2, 3]"), HasSubstr("kernel_size"));
  EXPECT_THAT(with("image_shape", "[65536, 65536, 65536]"), HasSubstr("encoder"));
  EXPECT_THAT(with("encoder", "{}"), HasSubstr("encoder"));
  EXPECT_THAT(with("encoder", "{\"features\": 5, \"frameStack\": 2}"), HasSubstr("0 convolutions"));
  EXPECT_THAT(with("image_shape", "[10, 8, 3]"), HasSubstr("actor.encoder.linear.weight"));
}

TEST(ImagePolicyTest, ATensorOfTheEncoderThatIsMissingIsNamed) {
  const std::string message = RefusalOf([](auto&, auto&, std::vector<TensorView>& tensors) {
    std::erase_if(tensors, [](const TensorView& tensor) {
      return tensor.name == "actor.encoder.conv.1.bias";
    });
  });
  EXPECT_THAT(message, HasSubstr("actor.encoder.conv.1.bias"));
}

}  // namespace
}  // namespace troupe
