// SAC that sees images, on the moving dot.
#include <cmath>

#include "common/policy.h"
#include "common/recurrence.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/sac.h"
#include "tests/unit/learner/moving_dot.h"

namespace troupe {
namespace {

using testing::HasSubstr;
using torch::Tensor;

constexpr int64_t kBatch = 32;

proto::Sac SmallConfig() {
  proto::Sac config;
  config.set_gamma(0);
  config.set_batch_size(kBatch);
  for (const auto rate :
       {&proto::Sac::set_actor_learning_rate, &proto::Sac::set_critic_learning_rate,
        &proto::Sac::set_alpha_learning_rate}) {
    (config.*rate)(2e-3);
  }
  config.mutable_actor()->add_hidden_sizes(32);
  config.mutable_critic()->add_hidden_sizes(32);
  proto::ImageEncoder& encoder = *config.mutable_encoder();
  encoder.set_frame_stack(kDotFrames);
  encoder.set_features(16);
  encoder.set_random_shift(1);
  proto::Convolution& layer = *encoder.add_layers();
  layer.set_channels(8);
  layer.set_kernel_size(3);
  layer.set_stride(2);
  return config;
}

DotAction Anything(const std::vector<uint8_t>&) {
  static std::mt19937_64 random(5);
  return {.action = std::uniform_real_distribution<float>(-1, 1)(random)};
}

DotPolicy ModeOf(Policy& policy) {
  return [&policy](const std::vector<uint8_t>& stack) {
    DotAction act;
    const absl::Status status = policy.Mode({}, 1, {&act.action, 1}, {}, stack);
    EXPECT_TRUE(status.ok()) << status;
    return act;
  };
}

std::vector<PixelRow> Play(MovingDot& dot, const DotPolicy& policy, int64_t rows) {
  std::vector<PixelRow> played;
  while (static_cast<int64_t>(played.size()) < rows) played.push_back(dot.Next(policy));
  return played;
}

class SacPixelsTest : public testing::Test {
 protected:
  std::unique_ptr<Sac> Make(const proto::Sac& config) const {
    return Sac::Create({.config = config, .seed = 3}, layout_).value();
  }
  // Windows from anywhere.
  WindowBatch Draw(const std::vector<PixelRow>& rows, int64_t length) {
    WindowBatch batch = std::make_shared<BatchPool>(kBatch, length, layout_.stride_bytes())->Take();
    for (int64_t i = 0; i < kBatch; ++i) {
      PackWindow(layout_, rows, static_cast<int64_t>(random_() % (rows.size() - length)), i, batch);
    }
    return batch;
  }
  WindowBatch Draw(const std::vector<PixelRow>& rows, const proto::Sac& config) {
    return Draw(rows, SacWindowLength(config));
  }
  std::unique_ptr<Policy> Publish(const Sac& sac) {
    return Policy::FromImage(sac.EncodePolicy({.run = "dot", .version = 1}).value()).value();
  }

  const Layout layout_ = DotLayout(false);
  MovingDot dot_{1};
  std::mt19937_64 random_{2};
};

TEST_F(SacPixelsTest, TransitionsSeeTheStacksOfTheirRows) {
  const auto reader = TransitionReader::Create(layout_, {.n_step = 2, .frame_stack = kDotFrames});
  ASSERT_TRUE(reader.ok()) << reader.status();
  std::vector<PixelRow> rows(5);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].frame.assign(kDotBytes, static_cast<uint8_t>(10 * i));
    rows[i].reward = static_cast<float>(i);
  }
  rows[0].flags = kTruncated;
  WindowBatch batch = std::make_shared<BatchPool>(1, 5, layout_.stride_bytes())->Take();
  const auto seen = [&](const Tensor& stack) {
    std::vector<int> values;
    for (int64_t f = 0; f < kDotFrames; ++f) {
      values.push_back(stack[0][f][4][4][0].item<int>());
    }
    return values;
  };
  const auto read = [&] {
    PackWindow(layout_, rows, 0, 0, batch);
    return reader->Read(batch.data(), 1);
  };
  Transitions b = read();
  const auto now = [&] { return seen(b.images->frames.index({b.images->now})); };
  const auto next = [&] { return seen(b.images->frames.index({b.images->next})); };
  EXPECT_THAT(now(), testing::ElementsAre(10, 10, 20));
  EXPECT_THAT(next(), testing::ElementsAre(20, 30, 40));
  ASSERT_TRUE(b.weight.has_value());
  EXPECT_EQ(b.weight->item<float>(), 1);
  rows[3].flags = kTerminated;  // the transition ends there
  b = read();
  EXPECT_THAT(next(), testing::ElementsAre(10, 20, 30));
  EXPECT_EQ(b.d.item<float>(), 1);
  rows[2].flags = kTerminated;
  b = read();
  EXPECT_EQ(b.weight->item<float>(), 0) << "no transition begins in a final row";
}

TEST_F(SacPixelsTest, WhatIsNoTransitionTeachesTheCriticsNothing) {
  proto::Sac config = SmallConfig();
  config.mutable_encoder()->set_random_shift(0);
  std::vector<PixelRow> rows = Play(dot_, Anything, 200);
  const auto learn = [&](float reward_of_finals) {
    for (PixelRow& row : rows) {
      if (row.flags != 0) row.reward = reward_of_finals;
    }
    random_.seed(9);
    const auto sac = Make(config);
    EXPECT_TRUE(sac->Update(Draw(rows, config), 0).ok());
    return sac->critics().parameters().values().clone();
  };
  EXPECT_TRUE(learn(0).equal(learn(1000)));
}

TEST_F(SacPixelsTest, ThePublishedPolicyHasTheCriticsConvolutions) {
  const auto sac = Make(SmallConfig());
  const std::string bytes = sac->EncodePolicy({.run = "dot", .version = 1}).value();
  const Safetensors image = Safetensors::Parse(bytes).value();
  const auto same = [&](const FlatParameters& parameters, const std::string& name) {
    for (size_t i = 0; i < parameters.specs().size(); ++i) {
      if (parameters.specs()[i].name != name) continue;
      const Tensor read =
          ReadTensor(image, "actor." + name, torch::kFloat32, parameters.specs()[i].shape).value();
      return read.equal(parameters.frozen()[i]);
    }
    return false;
  };
  EXPECT_TRUE(same(sac->critics().parameters(), "encoder.conv.0.weight"));
  EXPECT_TRUE(same(sac->actor().parameters(), "encoder.linear.weight"));
  EXPECT_FALSE(same(sac->critics().parameters(), "encoder.linear.weight"));
}

// The parameters from encoder.conv.0.weight on, and behind the convolutions.
Tensor Convolutions(FlatParameters& parameters) {
  return parameters.frozen()[4].clone();  // behind one hidden layer and the head
}

TEST_F(SacPixelsTest, CriticsAloneTrainTheConvolutionsAndTheTargetsFollow) {
  const std::vector<PixelRow> rows = Play(dot_, Anything, 200);
  for (const bool critics_learn : {false, true}) {
    proto::Sac config = SmallConfig();
    if (!critics_learn) config.set_critic_learning_rate(1e-30);
    const auto sac = Make(config);
    const Tensor before = Convolutions(sac->critics().parameters()),
                 actor = sac->actor().parameters().frozen()[4].clone();
    ASSERT_TRUE(sac->Update(Draw(rows, config), 0).ok());
    EXPECT_FALSE(sac->actor().parameters().frozen()[4].equal(actor));
    EXPECT_EQ(sac->critics().parameters().gradients().abs().max().item<float>(), 0);
    const Tensor after = Convolutions(sac->critics().parameters());
    EXPECT_EQ(after.equal(before), !critics_learn);
    const Tensor target = before + config.tau() * (after - before);
    EXPECT_TRUE(Convolutions(sac->target_critics().parameters()).allclose(target));
  }
}

TEST_F(SacPixelsTest, GradientsOfTheConvolutionsAreTheFiniteDifferences) {
  const auto sac =
      Sac::Create({.config = SmallConfig(), .seed = 3, .tensors = torch::kFloat64}, layout_)
          .value();
  const auto reader =
      TransitionReader::Create(layout_, {.frame_stack = kDotFrames, .tensors = torch::kFloat64});
  const WindowBatch batch = Draw(Play(dot_, Anything, 200), SmallConfig());
  const Transitions b = reader->Read(batch.data(), batch.num_windows);
  at::Generator generator = at::globalContext().defaultGenerator(torch::kCPU).clone();
  CriticEnsemble& critics = sac->critics();
  const auto value = [&] {
    const ConvolvedTransitions now{critics.Convolve(b.images->frames.index({b.images->now})), {}};
    return critics.Values(critics.See(b, now).s, b.a, generator).square().sum();
  };
  value().backward();
  const Tensor values = critics.parameters().values(),
               gradients = critics.parameters().gradients().clone();
  const torch::NoGradGuard no_grad;
  for (int64_t i = 7; i < values.numel(); i += values.numel() / 60) {
    const double at = values[i].item<double>(), h = 1e-5;
    values[i] = at + h;
    const double above = value().item<double>();
    values[i] = at - h;
    const double below = value().item<double>();
    values[i] = at;
    const double wanted = (above - below) / (2 * h);
    EXPECT_NEAR(gradients[i].item<double>(), wanted, 1e-4 * (1 + std::abs(wanted))) << i;
  }
}

TEST_F(SacPixelsTest, GoesOnBitByBitFromItsFiles) {
  const proto::Sac config = SmallConfig();
  const std::vector<PixelRow> rows = Play(dot_, Anything, 200);
  const auto sac = Make(config), other = Make(config);
  ASSERT_TRUE(sac->Update(Draw(rows, config), 0).ok());
  ASSERT_TRUE(other->Load(sac->Save().value()).ok());
  const WindowBatch batch = Draw(rows, config);
  ASSERT_TRUE(sac->Update(batch, 0).ok());
  ASSERT_TRUE(other->Update(batch, 0).ok());
  EXPECT_EQ(sac->Save().value(), other->Save().value());
}

TEST_F(SacPixelsTest, LearnsWhatOneFrameDoesNotShow) {
  const proto::Sac config = SmallConfig();
  const auto sac = Make(config);
  const std::vector<PixelRow> rows = Play(dot_, Anything, 3000);
  const auto mean_reward = [&] {
    const auto policy = Publish(*sac);
    double sum = 0;
    int64_t steps = 0;
    for (const PixelRow& row : Play(dot_, ModeOf(*policy), 1000)) {
      sum += row.reward;
      steps += row.flags == 0 ? 1 : 0;
    }
    return sum / static_cast<double>(steps);  // of it 0.45 or so by chance, for the choice is 0
  };
  EXPECT_LT(mean_reward(), 0);
  for (int i = 0; i < 400; ++i) ASSERT_TRUE(sac->Update(Draw(rows, config), 0).ok());
  EXPECT_GT(mean_reward(), 0.3);
}

TEST_F(SacPixelsTest, AnEncoderWithoutImagesIsRefused) {
  proto::Layout plain = layout_.proto();
  plain.mutable_columns(0)->set_dtype(proto::FLOAT32);
  const auto sac = Sac::Create({.config = SmallConfig()}, *Layout::FromProto(plain));
  EXPECT_TRUE(absl::IsInvalidArgument(sac.status()));
  EXPECT_THAT(std::string(sac.status().message()), HasSubstr("encoder"));
}

TEST_F(SacPixelsTest, AnImageThatIsSmallerThanAKernelIsRefused) {
  proto::Sac config = SmallConfig();
  config.mutable_encoder()->mutable_layers(0)->set_kernel_size(10);
  const auto sac = Sac::Create({.config = config}, layout_);
  EXPECT_THAT(std::string(sac.status().message()), HasSubstr("9x9"));
}

}  // namespace
}  // namespace troupe
