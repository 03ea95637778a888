#ifndef TROUPE_LEARNER_FUSED_ROWS_BUILDER_H_
#define TROUPE_LEARNER_FUSED_ROWS_BUILDER_H_

#include <algorithm>

#include "learner/fused/rows_program.h"

namespace troupe {

inline constexpr int kFloatsOf16Bytes = 4;

// Steps and jobs in the making, and places in shared memory.
class RowsBuilder final {
 public:
  explicit RowsBuilder(const DeviceNetworks& networks) {
    int widest = 0;
    for (const PackedNetwork* network : {&networks.actor_network, &networks.critic_network}) {
      for (int l = 0; l < network->num_hidden(); ++l) {
        widest = std::max(widest, network->layers[l].padded_n);
      }
    }
    RowsLayout& layout = built_.layout;
    layout.hidden_stride = SharedStride(widest);
    layout.input_stride = SharedStride(networks.critic_network.layers[0].padded_k);
    layout.value_width = networks.critic_network.head().padded_k;
    layout.s_a = TakeRows(1, layout.input_stride);
  }

  RowsLayout& layout() { return built_.layout; }

  int Take(int floats) {
    const int taken = built_.layout.size;
    built_.layout.size += RoundUp(floats, kFloatsOf16Bytes);
    return taken;
  }
  // `n` arrays of kTileRows rows.
  int TakeRows(int n, int stride) { return Take(n * SizeOf(stride)); }
  static int SizeOf(int stride) { return kTileRows / 2 * stride; }

  void BeginStep(Before before, bool everywhere) {
    RowsStep& step = built_.program.steps[built_.num_steps++];
    step.before = before;
    step.first_job = built_.num_jobs;
    step.everywhere = everywhere ? 1 : 0;
  }
  void AddJob(const ProductJob& job) { built_.program.jobs[built_.num_jobs++] = job; }

  // A product of few outputs, as sums over parts of its inputs that many warps make; part p of it
  // goes to the arrays of rows from `output` on.
  void AddParts(const ProductJob& job, int parts, int output, int output_stride) {
    for (int p = 0; p < parts; ++p) {
      ProductJob part = job;
      part.blocks = job.blocks / parts;
      part.first_block = p * part.blocks;
      part.input += 2 * kBlockK * part.first_block;
      if (p > 0) part.bias = nullptr;
      part.output = output + p * SizeOf(output_stride);
      part.output_stride = output_stride;
      AddJob(part);
    }
  }

  // From a layer's inputs to its outputs.
  static ProductJob Forward(const PackedLayer& layer, const float* values) {
    ProductJob job;
    job.weights = values + layer.weights;
    job.bias = values + layer.bias;
    job.width = layer.padded_n;
    job.blocks = job.row_blocks = layer.padded_k / kBlockK;
    job.tiles = layer.padded_n / kTileColumns;
    return job;
  }
  // From gradients of its outputs to those of its inputs.
  static ProductJob Backward(const PackedLayer& layer, const float* transposed) {
    ProductJob job;
    job.weights = transposed + layer.transposed;
    job.width = layer.padded_k;
    job.blocks = job.row_blocks = layer.transposed_n / kBlockK;
    job.tiles = layer.padded_k / kTileColumns;
    return job;
  }
  static void Activate(HiddenUnit unit, ProductJob& job) {
    job.combine = Combine::kActivate;
    job.unit = unit;
    job.is_shared = 1;
  }
  static void MultiplyBySlope(HiddenUnit unit, const float* h, ProductJob& job) {
    job.combine = Combine::kMultiplyBySlope;
    job.unit = unit;
    job.mask = h;
    job.is_shared = 1;
  }
  void From(int input, int stride, ProductJob& job) const {
    job.input = input;
    job.input_stride = stride;
  }
  void FromHidden(int input, ProductJob& job) const {
    From(input, built_.layout.hidden_stride, job);
  }
  void ToHidden(int output, ProductJob& job) const {
    job.output = output;
    job.output_stride = built_.layout.hidden_stride;
  }

  BuiltProgram Finish(int num_values) {
    RowsLayout& layout = built_.layout;
    layout.value_head = Take(num_values * layout.value_width);
    layout.values = Take(num_values * kTileRows);
    layout.value_gradient = Take(2 * kTileRows);
    layout.barriers = Take(2 * built_.num_steps);
    layout.steps = Take(built_.num_steps * static_cast<int>(sizeof(RowsStep) / sizeof(float)));
    layout.jobs = Take(built_.num_jobs * static_cast<int>(sizeof(ProductJob) / sizeof(float)));
    return built_;
  }

 private:
  BuiltProgram built_;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_ROWS_BUILDER_H_
