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
    step.first_norm = built_.num_norms - num_waiting_;
    for (; num_waiting_ > 0; --num_waiting_) {
      const NormJob& norm = built_.program.norms[built_.num_norms - num_waiting_];
      ++(norm.is_backward != 0 ? step.num_norms_back : step.num_norms);
    }
  }
  void AddJob(const ProductJob& job) { built_.program.jobs[built_.num_jobs++] = job; }

  // At the beginning of the step that is begun next.  Those on the way back come last.
  void AddNorm(const NormJob& norm) {
    built_.program.norms[built_.num_norms++] = norm;
    ++num_waiting_;
  }
  // Backward, from the gradients at `rows` to those by the layer's sums, which are `kept`.
  void AddNormBack(const PackedLayer& layer, const float* values, const NormRows& of_rows, int rows,
                   float* kept) {
    NormJob norm = NormOf(layer, values, of_rows);
    norm.rows = rows;
    norm.stride = built_.layout.hidden_stride;
    norm.kept = kept;
    norm.is_backward = 1;
    AddNorm(norm);
  }

  // A job to the values of `layer`, or to the gradients by what its unit is given: where it has
  // LayerNorm, that is done before anybody reads them.
  void AddHidden(const PackedLayer& layer, const float* values, const NormRows& of_rows,
                 ProductJob job) {
    if (layer.has_norm() && job.combine == Combine::kMultiplyBySlope) {
      AddNormBack(layer, values, of_rows, job.output, job.kept);
      job.kept = nullptr;
    } else if (layer.has_norm()) {
      NormJob norm = NormOf(layer, values, of_rows);
      norm.rows = job.output;
      norm.stride = job.output_stride;
      norm.kept = job.kept;
      norm.unit = job.unit;
      AddNorm(norm);
      job.combine = Combine::kNothing;
      job.kept = nullptr;
    }
    AddJob(job);
  }

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
    if (num_waiting_ > 0) BeginStep(Before::kNothing, /*everywhere=*/false);
    RowsLayout& layout = built_.layout;
    layout.value_head = Take(num_values * layout.value_width);
    layout.values = Take(num_values * kTileRows);
    layout.value_gradient = Take(2 * kTileRows);
    layout.barriers = Take(2 * built_.num_steps);
    layout.steps = Take(built_.num_steps * static_cast<int>(sizeof(RowsStep) / sizeof(float)));
    layout.jobs = Take(built_.num_jobs * static_cast<int>(sizeof(ProductJob) / sizeof(float)));
    layout.norms = Take(built_.num_norms * static_cast<int>(sizeof(NormJob) / sizeof(float)));
    return built_;
  }

 private:
  static NormJob NormOf(const PackedLayer& layer, const float* values, const NormRows& of_rows) {
    NormJob norm;
    norm.gain = values + layer.norm_gain;
    norm.bias = values + layer.norm_bias;
    norm.normalized = of_rows.normalized;
    norm.scale = of_rows.scale;
    norm.sums = of_rows.sums;
    norm.n = layer.n;
    norm.width = layer.padded_n;
    return norm;
  }

  BuiltProgram built_;
  int num_waiting_ = 0;  // norms for the next step
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_ROWS_BUILDER_H_
