// PPO that sees images, on the moving dot.
#include "common/frame_stack.h"
#include "common/policy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/ppo.h"
#include "tests/unit/learner/moving_dot.h"

namespace troupe {
namespace {

using testing::HasSubstr;
using torch::Tensor;

constexpr int64_t kLength = 16, kStreams = 8;

proto::Ppo SmallConfig() {
  proto::Ppo config;
  config.set_unroll_length(kLength);
  config.set_batch_windows(kStreams);
  config.set_gamma(0);
  config.set_epochs(4);
  config.set_minibatch_size(32);
  config.set_learning_rate(2e-3);
  config.set_scale_rewards(false);
  proto::ImageEncoder& encoder = *config.mutable_encoder();
  encoder.set_frame_stack(kDotFrames);
  encoder.set_features(32);
  proto::Convolution& layer = *encoder.add_layers();
  layer.set_channels(8);
  layer.set_kernel_size(3);
  layer.set_stride(2);
  return config;
}

DotPolicy DrawnFrom(Policy& policy, bool discrete) {
  return [&policy, discrete](const std::vector<uint8_t>& stack) {
    float env = 0, row = 0, log_prob = 0;
    const absl::Status status =
        policy.Sample({}, 1, {{&env, 1}, {&row, 1}, {&log_prob, 1}}, {}, stack);
    EXPECT_TRUE(status.ok()) << status;
    return DotAction{.action = discrete ? 0 : row,
                     .choice = discrete ? static_cast<int32_t>(env) : 0,
                     .log_prob = log_prob};
  };
}

// The rows of one environment, cut as an actor cuts them: see LeadRows.
class Stream final {
 public:
  explicit Stream(uint64_t seed) : dot_(seed) {}

  // Makes the next unroll and returns where its window begins.
  int64_t Unroll(const DotPolicy& policy) {
    const int64_t lead = LeadRows(SmallConfig());
    while (static_cast<int64_t>(rows.size()) < lead) rows.push_back(dot_.Next(policy));
    const int64_t begin = static_cast<int64_t>(rows.size()) - lead;
    for (int64_t place = 0; place < kLength; ++place) rows.push_back(dot_.Next(policy));
    rows.push_back(Last(policy));
    return begin;
  }

  std::vector<PixelRow> rows;

 private:
  // Its episode's last row, if it ends here, or a cut.
  PixelRow Last(const DotPolicy& policy) {
    MovingDot ahead = dot_;
    PixelRow next = ahead.Next(policy);
    if (next.flags == 0) return dot_.Cut();
    dot_ = ahead;
    return next;
  }

  MovingDot dot_;
};

class PpoPixelsTest : public testing::TestWithParam<bool> {
 protected:
  PpoPixelsTest() {
    for (int64_t i = 0; i < kStreams; ++i) streams_.emplace_back(i + 1);
    ppo_ = Make(SmallConfig());
  }
  std::unique_ptr<Ppo> Make(const proto::Ppo& config) const {
    return Ppo::Create({.config = config, .seed = 4}, layout_).value();
  }
  std::unique_ptr<Policy> Publish() {
    return Policy::FromImage(ppo_->EncodePolicy({.run = "dot", .version = ++version_}).value())
        .value();
  }
  // The next unroll of every stream.
  WindowBatch Collect() {
    const auto policy = Publish();
    policy->Seed(version_);
    WindowBatch batch = std::make_shared<BatchPool>(kStreams, LeadRows(SmallConfig()) + kLength + 1,
                                                    layout_.stride_bytes())
                            ->Take();
    for (int64_t i = 0; i < kStreams; ++i) {
      const int64_t begin = streams_[i].Unroll(DrawnFrom(*policy, GetParam()));
      PackWindow(layout_, streams_[i].rows, begin, i, batch);
    }
    return batch;
  }
  Ppo::Steps Prepare(const WindowBatch& batch) {
    const UnrollReader reader = UnrollReader::Create(layout_, {.frame_stack = kDotFrames}).value();
    return ppo_->Prepare(reader.Read(batch.data(), batch.num_windows, batch.window_length));
  }
  double MeanReward(const WindowBatch& batch) {
    const UnrollReader reader = UnrollReader::Create(layout_, {.frame_stack = kDotFrames}).value();
    const Unrolls b = reader.Read(batch.data(), batch.num_windows, batch.window_length);
    return b.r.masked_select(b.is_step).mean().item<double>();
  }

  const Layout layout_ = DotLayout(GetParam());
  std::vector<Stream> streams_;
  std::unique_ptr<Ppo> ppo_;
  uint64_t version_ = 0;
};

// Over ends of episodes and of unrolls: the actor saw at every step what the learner sees there.
TEST_P(PpoPixelsTest, TheRatioIsOneOnTheFirstMinibatch) {
  for (int round = 0; round < 4; ++round) {
    const WindowBatch batch = Collect();
    const Ppo::Steps seen = ppo_->Seen(Prepare(batch));
    const Tensor log_pi = ppo_->actor().LogProb(ppo_->actor().Head(seen.s), seen.a).detach();
    const double off = ((log_pi - seen.log_mu).exp() - 1).abs().max().item<double>();
    EXPECT_LT(off, 2e-5) << "round " << round;
    const absl::Status status = ppo_->Update(batch, 0);
    ASSERT_TRUE(status.ok()) << status;
  }
}

TEST_P(PpoPixelsTest, EachFrameOfABatchIsHeldOnce) {
  const WindowBatch batch = Collect();
  const Ppo::Steps steps = Prepare(batch);
  EXPECT_EQ(steps.frames.numel(), kStreams * batch.window_length * kDotBytes);
  EXPECT_EQ(steps.frames.scalar_type(), torch::kUInt8);
}

TEST_P(PpoPixelsTest, PolicyAndValueTrainTheConvolutions) {
  const Ppo::Steps seen = ppo_->Seen(Prepare(Collect()));
  const auto gradient = [&](const Tensor& loss) {
    ppo_->actor().parameters().gradients().zero_();
    loss.backward({}, /*retain_graph=*/true);
    const Tensor& first = ppo_->actor().parameters().trainable()[2];  // encoder.conv.0.weight
    return first.grad().abs().sum().item<double>();
  };
  EXPECT_GT(gradient(ppo_->actor().Head(seen.s).square().sum()), 0);
  EXPECT_GT(gradient(ppo_->critic().Value(seen.s).sum()), 0);
}

TEST_P(PpoPixelsTest, GoesOnBitByBitFromItsFiles) {
  ASSERT_TRUE(ppo_->Update(Collect(), 0).ok());
  const auto other = Make(SmallConfig());
  ASSERT_TRUE(other->Load(ppo_->Save().value()).ok());
  const WindowBatch batch = Collect();
  ASSERT_TRUE(ppo_->Update(batch, 0).ok());
  ASSERT_TRUE(other->Update(batch, 0).ok());
  EXPECT_EQ(ppo_->Save().value(), other->Save().value());
}

TEST_P(PpoPixelsTest, LearnsWhatOneFrameDoesNotShow) {
  double first = 0, last = 0;
  for (int i = 0; i < 40; ++i) {
    const WindowBatch batch = Collect();
    last = MeanReward(batch);
    if (i == 0) first = last;
    ASSERT_TRUE(ppo_->Update(batch, 0).ok());
  }
  EXPECT_GT(last, first + 0.3);
}

TEST(PpoPixels, WithoutHiddenSizesTheHeadsStandOnTheFeatures) {
  const auto ppo = Ppo::Create({.config = SmallConfig()}, DotLayout(true)).value();
  EXPECT_EQ(ppo->actor().parameters().specs()[0].name, "head.weight");
}

TEST(PpoPixels, NoFusedEngineIsAskedForImages) {
  const auto engine = [](const PpoModel&) -> absl::StatusOr<std::unique_ptr<PpoEngine>> {
    return absl::InternalError("asked");
  };
  const auto ppo =
      Ppo::Create({.config = SmallConfig(), .make_engine = engine}, DotLayout(false)).value();
  EXPECT_THAT(std::string(ppo->fused().message()), HasSubstr("images"));
}

INSTANTIATE_TEST_SUITE_P(Actions, PpoPixelsTest, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "Choices" : "Continuous");
});

}  // namespace
}  // namespace troupe
