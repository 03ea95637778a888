#include "common/policy_codec.h"

#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/policy_head.h"

namespace troupe {
namespace {

constexpr char kFormat[] = "troupe.policy.2";
constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr int kMaxHiddenLayers = 64;
constexpr int kMaxHiddenSize = 65536;
constexpr int64_t kMaxChoices = 65536;
constexpr int kMaxUnits = 65536;
constexpr char kRecurrence[] = "recurrence";
constexpr char kImageShape[] = "image_shape";
constexpr char kEncoder[] = "encoder";
constexpr int64_t kMaxImageAxis = 65536;
constexpr int kMaxFrames = 64;
constexpr int kMaxChannels = 4096;
constexpr int kMaxKernel = 64;
// Actions are float32, and so must the distance between their bounds be.
constexpr double kMaxBound = std::numeric_limits<float>::max() / 2;

constexpr std::pair<const char*, Distribution> kDistributions[] = {
    {"squashed_gaussian", Distribution::kSquashedGaussian},
    {"gaussian", Distribution::kGaussian},
    {"categorical", Distribution::kCategorical}};

const char* NameOf(Distribution distribution) {
  return kDistributions[static_cast<int>(distribution)].first;
}

// Reads the strings of one image; the first fault is kept.
class MetadataReader final {
 public:
  explicit MetadataReader(const Safetensors& image) : image_(image) {}

  const absl::Status& status() const { return status_; }

  std::string String(const char* key) {
    absl::StatusOr<std::string> text = image_.Metadata(key);
    if (!text.ok()) {
      status_.Update(text.status());
      return "";
    }
    return *std::move(text);
  }

  int64_t Integer(const char* key, int64_t min, int64_t max) {
    const std::string text = String(key);
    int64_t value = 0;
    if (!absl::SimpleAtoi(text, &value) || value < min || value > max) {
      Fault(key, text, absl::StrCat("a whole number from ", min, " to ", max));
    }
    return value;
  }

  uint64_t Version(const char* key) {
    const std::string text = String(key);
    uint64_t value = 0;
    if (!absl::SimpleAtoi(text, &value) || value == 0) Fault(key, text, "a version");
    return value;
  }

  double Number(const char* key) {
    const std::string text = String(key);
    double value = 0;
    if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) Fault(key, text, "a number");
    return value;
  }

  std::vector<double> Numbers(const char* key, int64_t size) {
    const std::string text = String(key);
    const nlohmann::json parsed = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    std::vector<double> values;
    for (const nlohmann::json& number : parsed) {
      if (number.is_number()) values.push_back(number.get<double>());
    }
    if (!parsed.is_array() || static_cast<int64_t>(parsed.size()) != size ||
        static_cast<int64_t>(values.size()) != size) {
      Fault(key, text, absl::StrCat("a JSON array of ", size, " numbers"));
    }
    return values;
  }

  Distribution DistributionKind(const char* key) {
    const std::string text = String(key);
    for (const auto& [name, distribution] : kDistributions) {
      if (text == name) return distribution;
    }
    Fault(key, text, "squashed_gaussian, gaussian or categorical");
    return Distribution::kSquashedGaussian;
  }

  // Whole numbers from 1 to `max`.
  std::vector<int64_t> Counts(const char* key, int64_t size, int64_t max) {
    std::vector<int64_t> counts;
    for (const double number : Numbers(key, size)) {
      const bool good =
          number == std::floor(number) && number >= 1 && number <= static_cast<double>(max);
      if (!good) Fault(key, absl::StrCat(number), absl::StrCat("1 to ", max));
      counts.push_back(good ? static_cast<int64_t>(number) : 1);
    }
    return counts;
  }

  proto::Mlp Network(const char* key) {
    const std::string text = String(key);
    proto::Mlp network;
    bool good = google::protobuf::util::JsonStringToMessage(text, &network).ok() &&
                network.hidden_sizes_size() <= kMaxHiddenLayers &&
                network.activation() != proto::ACTIVATION_UNSPECIFIED && network.dropout() >= 0 &&
                network.dropout() < 1;
    for (const int size : network.hidden_sizes()) good &= size >= 1 && size <= kMaxHiddenSize;
    if (!good) Fault(key, text, "a network");
    return network;
  }

  // None where the image does not speak of one.
  proto::Recurrence Recurrence() {
    proto::Recurrence recurrence;
    if (image_.metadata().count(kRecurrence) == 0) return recurrence;
    const std::string text = String(kRecurrence);
    if (!google::protobuf::util::JsonStringToMessage(text, &recurrence).ok() ||
        !HasMemory(recurrence) || recurrence.units() < 1 || recurrence.units() > kMaxUnits) {
      Fault(kRecurrence, text, "a recurrent layer");
    }
    return recurrence;
  }

  // None where the image does not speak of one.
  void Encoder(PolicyMetadata& metadata) {
    if (image_.metadata().count(kImageShape) == 0) return;
    metadata.image_shape = Counts(kImageShape, 3, kMaxImageAxis);
    const std::string text = String(kEncoder);
    proto::ImageEncoder& encoder = metadata.encoder;
    bool good = google::protobuf::util::JsonStringToMessage(text, &encoder).ok() &&
                encoder.layers_size() <= kMaxHiddenLayers &&
                IsWithin(encoder.features(), kMaxHiddenSize) &&
                IsWithin(encoder.frame_stack(), kMaxFrames);
    for (const proto::Convolution& layer : encoder.layers()) {
      good &= IsWithin(layer.channels(), kMaxChannels) &&
              IsWithin(layer.kernel_size(), kMaxKernel) && IsWithin(layer.stride(), kMaxKernel);
    }
    if (!good) Fault(kEncoder, text, "an encoder of images");
    if (!status_.ok()) return;
    if (const absl::Status fits = CheckEncoder(EncoderOf(metadata)); !fits.ok()) {
      Fault(kEncoder, text, absl::StrCat("one that fits: ", fits.message()));
    }
  }

  void Fault(absl::string_view key, absl::string_view found, absl::string_view wanted) {
    status_.Update(absl::InvalidArgumentError(absl::StrCat(
        "policy metadata '", key, "' is '", found.substr(0, 100), "', expected ", wanted)));
  }

 private:
  static bool IsWithin(int number, int max) { return number >= 1 && number <= max; }

  const Safetensors& image_;
  absl::Status status_;
};

void CheckBounds(const PolicyMetadata& metadata, MetadataReader& reader) {
  for (size_t i = 0; i < metadata.action_low.size(); ++i) {
    const double low = metadata.action_low[i], high = metadata.action_high[i];
    if (!(-kMaxBound <= low && low < high && high <= kMaxBound)) {
      reader.Fault("action_low", absl::StrCat(low),
                   absl::StrCat("less than the upper bound ", high, " of element ", i,
                                ", both within +-", kMaxBound));
    }
  }
}

std::string ToText(double value) { return nlohmann::json(value).dump(); }

void SetDistributionMetadata(const PolicyMetadata& metadata, TensorFile& file) {
  if (metadata.distribution == Distribution::kCategorical) {
    file.SetMetadata("num_choices", nlohmann::json(metadata.num_choices).dump());
    return;
  }
  file.SetMetadata("action_low", nlohmann::json(metadata.action_low).dump());
  file.SetMetadata("action_high", nlohmann::json(metadata.action_high).dump());
  if (metadata.distribution == Distribution::kGaussian) {
    file.SetMetadata("squash", metadata.squash ? "1" : "0");
    return;
  }
  file.SetMetadata("log_std_min", ToText(metadata.log_std_min));
  file.SetMetadata("log_std_max", ToText(metadata.log_std_max));
}

void ReadDistributionMetadata(MetadataReader& reader, PolicyMetadata& metadata) {
  if (metadata.distribution == Distribution::kCategorical) {
    metadata.num_choices = reader.Counts("num_choices", metadata.action_size, kMaxChoices);
    return;
  }
  metadata.action_low = reader.Numbers("action_low", metadata.action_size);
  metadata.action_high = reader.Numbers("action_high", metadata.action_size);
  if (metadata.distribution == Distribution::kGaussian) {
    metadata.squash = reader.Integer("squash", 0, 1) == 1;
    return;
  }
  metadata.log_std_min = reader.Number("log_std_min");
  metadata.log_std_max = reader.Number("log_std_max");
}

}  // namespace

int64_t PolicyInputs(const PolicyMetadata& metadata) {
  return metadata.observation_size + EncoderOf(metadata).features();
}

MlpShape PolicyShape(const PolicyMetadata& metadata) {
  return {.inputs = PolicyInputs(metadata) + OutputSize(metadata.recurrence),
          .outputs = HeadSize(metadata),
          .ensemble = 0,
          .spec = metadata.network,
          .head_gain = metadata.distribution == Distribution::kSquashedGaussian ? 0 : 0.01};
}

RecurrentLayer PolicyMemory(const PolicyMetadata& metadata) {
  return LayerBefore(PolicyShape(metadata), metadata.recurrence, PolicyInputs(metadata));
}

std::vector<ParameterSpec> PolicyParameters(const PolicyMetadata& metadata) {
  std::vector<ParameterSpec> specs =
      RecurrentParameters(PolicyShape(metadata), PolicyMemory(metadata));
  const ImageEncoderShape encoder = EncoderOf(metadata);
  for (const auto& of_encoder : {ConvolutionParameters(encoder), FeatureParameters(encoder)}) {
    specs.insert(specs.end(), of_encoder.begin(), of_encoder.end());
  }
  if (metadata.distribution == Distribution::kGaussian) {
    specs.push_back({.name = "log_std", .shape = {metadata.action_size}});
  }
  return specs;
}

absl::StatusOr<std::string> EncodePolicy(const PolicyMetadata& metadata,
                                         const FlatParameters& actor,
                                         const PolicyStatistics& statistics) {
  std::string network, recurrence, encoder;
  if (!google::protobuf::util::MessageToJsonString(metadata.network, &network).ok() ||
      !google::protobuf::util::MessageToJsonString(metadata.recurrence, &recurrence).ok() ||
      !google::protobuf::util::MessageToJsonString(metadata.encoder, &encoder).ok()) {
    return absl::InternalError("cannot write the network as JSON");
  }
  TensorFile file;
  file.SetMetadata("format", kFormat);
  file.SetMetadata("run", metadata.run);
  file.SetMetadata("version", absl::StrCat(metadata.version));
  file.SetMetadata("env_steps", absl::StrCat(metadata.env_steps));
  file.SetMetadata("updates", absl::StrCat(metadata.updates));
  file.SetMetadata("warmup", metadata.warmup ? "1" : "0");
  file.SetMetadata("final", metadata.final_one ? "1" : "0");
  file.SetMetadata("observation_size", absl::StrCat(metadata.observation_size));
  file.SetMetadata("action_size", absl::StrCat(metadata.action_size));
  file.SetMetadata("distribution", NameOf(metadata.distribution));
  file.SetMetadata("network", network);
  if (HasMemory(metadata.recurrence)) file.SetMetadata(kRecurrence, recurrence);
  if (!metadata.image_shape.empty()) {
    file.SetMetadata(kImageShape, nlohmann::json(metadata.image_shape).dump());
    file.SetMetadata(kEncoder, encoder);
  }
  file.SetMetadata("observation_clip", ToText(metadata.observation_clip));
  SetDistributionMetadata(metadata, file);
  actor.Save(kActorPrefix, file);
  const std::pair<const char*, const torch::Tensor&> tensors[] = {
      {kNormalizerMean, statistics.observation_mean},
      {kNormalizerStd, statistics.observation_std},
      {kRewardStd, statistics.reward_std}};
  for (const auto& [name, tensor] : tensors) {
    if (tensor.defined()) file.Add(name, tensor);
  }
  return file.Encode();
}

absl::StatusOr<PolicyMetadata> ParsePolicyMetadata(const Safetensors& image) {
  MetadataReader reader(image);
  if (const std::string format = reader.String("format"); format != kFormat) {
    reader.Fault("format", format, kFormat);
  }
  PolicyMetadata metadata;
  metadata.run = reader.String("run");
  metadata.version = reader.Version("version");
  metadata.env_steps = reader.Integer("env_steps", 0, INT64_MAX);
  metadata.updates = reader.Integer("updates", 0, INT64_MAX);
  metadata.warmup = reader.Integer("warmup", 0, 1) == 1;
  metadata.final_one = reader.Integer("final", 0, 1) == 1;
  metadata.observation_size =
      reader.Integer("observation_size", image.metadata().count(kImageShape) > 0 ? 0 : 1, kMaxSize);
  metadata.action_size = reader.Integer("action_size", 1, kMaxSize);
  metadata.distribution = reader.DistributionKind("distribution");
  metadata.network = reader.Network("network");
  metadata.recurrence = reader.Recurrence();
  metadata.observation_clip = reader.Number("observation_clip");
  if (metadata.observation_clip < 0) {
    reader.Fault("observation_clip", ToText(metadata.observation_clip), "0 or more");
  }
  if (!reader.status().ok()) return reader.status();
  reader.Encoder(metadata);
  ReadDistributionMetadata(reader, metadata);
  if (!reader.status().ok()) return reader.status();
  CheckBounds(metadata, reader);
  if (metadata.log_std_min > metadata.log_std_max) {
    reader.Fault("log_std_min", ToText(metadata.log_std_min), "at most log_std_max");
  }
  if (!reader.status().ok()) return reader.status();
  return metadata;
}

}  // namespace troupe
