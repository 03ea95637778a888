#include "learner/adam.h"

#include "gtest/gtest.h"

namespace troupe {
namespace {

using torch::Tensor;

// What a GPU does, in tensors alone, so that a graph can repeat it.
TEST(AdamTest, StepsThatTheDeviceCountsAreThoseThatTheHostCounts) {
  torch::manual_seed(1);
  const Tensor values = torch::randn({1000}), on_device = values.clone();
  Adam host(values, 1e-2, 1e-5, Adam::Place::kHost),
      device(values, 1e-2, 1e-5, Adam::Place::kDevice);
  for (int i = 0; i < 50; ++i) {
    const Tensor gradients = torch::randn({1000}), again = gradients.clone();
    host.Step(values, gradients);
    device.Step(on_device, again);
    EXPECT_EQ(again.abs().max().item<float>(), 0);
    ASSERT_LT((values - on_device).abs().max().item<float>(), 1e-5) << i;
  }
  EXPECT_EQ(device.steps(), 50);
  device.set_steps(7);
  EXPECT_EQ(device.steps(), 7);
  host.set_steps(7);
  const Tensor gradients = torch::randn({1000}), again = gradients.clone();
  host.Step(values, gradients);
  device.Step(on_device, again);
  EXPECT_LT((values - on_device).abs().max().item<float>(), 1e-5);
}

}  // namespace
}  // namespace troupe
