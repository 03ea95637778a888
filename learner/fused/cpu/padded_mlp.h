#ifndef TROUPE_LEARNER_FUSED_CPU_PADDED_MLP_H_
#define TROUPE_LEARNER_FUSED_CPU_PADDED_MLP_H_

#include <cstdint>
#include <vector>

#include "learner/fused/cpu/aligned_floats.h"
#include "learner/fused/cpu/kernels.h"
#include "learner/fused/flat_network.h"

namespace troupe::cpu {

// A block of rows in memory.
struct InputRows {
  const float* data;
  int64_t stride;
  int64_t rows;
};

class PaddedMlp;

// What a network's passes over one block of rows leave behind.
struct MlpBlock {
  MlpBlock(const PaddedMlp& mlp, int64_t max_rows);

  std::vector<AlignedFloats> h;  // the hidden layers' values
  // The objective's gradients by their sums (before LayerNorm and the unit).
  std::vector<AlignedFloats> d;
  AlignedFloats output, output_gradient;
  // With LayerNorm, of each hidden layer: the normalized sums and their scale, and the gradients by
  // its gains and, behind them, its biases.
  std::vector<AlignedFloats> normalized, inverse_deviation, norm_gradient;
};

// The passes of a multi-layer perceptron, derived by hand; parameters lie as kernels want them.
//
// Weights are [k, n] with room in each row; those of a head with one output are one row of k.  A
// block's outputs are [rows, output_stride()], and [rows] for one output.  Immutable, so
// thread-safe; blocks and vectors are the caller's.
class PaddedMlp final {
 public:
  // Gradients by the inputs are wanted from number `first_wanted_input` on.
  PaddedMlp(const FlatNetwork& network, Unit unit, const Kernels& kernels,
            int64_t first_wanted_input);

  // Floats of a vector of parameters, and of one of transposed weights.
  int64_t size() const { return size_; }
  int64_t transposed_size() const { return transposed_size_; }
  int64_t num_hidden() const { return static_cast<int64_t>(layers_.size()) - 1; }
  int64_t width(int64_t hidden) const { return layers_[hidden].n; }
  bool has_norm() const { return layers_[0].has_norm; }
  int64_t output_stride() const { return has_scalar_output() ? 1 : layers_.back().stride; }
  int64_t input_gradient_stride() const { return layers_[0].transposed_stride; }

  // Between network `e` of the vector that FlatNetwork describes and one that is padded.
  void Pack(const float* flat, int64_t e, float* padded) const;
  void Unpack(const float* padded, int64_t e, float* flat) const;

  // Part `part` of `parts` of: transposed = what the passes back need of `parameters`.
  void Transpose(const float* parameters, int64_t part, int64_t parts, float* transposed) const;

  // Fills h and output.
  void Forward(const float* parameters, const InputRows& x, MlpBlock& block) const;
  // Fills d from output_gradient, for the rows `picks` of the block, or all of them if that is
  // null; `rows` of them.  What is filled lies in the order of the picks.
  void Backward(const float* parameters, const float* transposed, int64_t rows,
                const int32_t* picks, MlpBlock& block) const;
  // `gradient` = or += that of the parameters, after a Backward without picks.
  void ParameterGradient(const InputRows& x, const MlpBlock& block, bool add,
                         float* gradient) const;
  // The gradient by the wanted inputs, [rows, input_gradient_stride()].
  void InputGradient(const float* transposed, int64_t rows, const MlpBlock& block,
                     float* gradient) const;

 private:
  struct Layer {
    int64_t k = 0, n = 0, stride = 0;  // inputs, outputs; from row to row of the weights
    int64_t weights = 0, bias = 0;     // where they begin
    bool has_norm = false;             // of hidden layers: of all or of none
    int64_t norm_gain = 0, norm_bias = 0;
    int64_t first_transposed = 0;  // rows of the weights from this one on
    int64_t transposed = 0, transposed_stride = 0;
  };

  // LayerNorm and the unit of hidden layer `l`, whose sums are in h; and back through LayerNorm,
  // whose values' gradients are in d.
  void Normalize(const float* parameters, int64_t l, int64_t rows, MlpBlock& block) const;
  void NormalizeBack(const float* parameters, int64_t l, int64_t rows, const int32_t* picks,
                     MlpBlock& block) const;
  bool has_scalar_output() const { return layers_.back().n == 1; }
  // Calls f(padded offset, flat offset, floats) for each run of parameters of network `e`.
  template <typename Function>
  void ForEachRun(int64_t e, const Function& f) const;

  const FlatNetwork network_;
  const Unit unit_;
  const Kernels& kernels_;
  std::vector<Layer> layers_;  // the head is the last one
  int64_t size_ = 0, transposed_size_ = 0;
};

}  // namespace troupe::cpu

#endif  // TROUPE_LEARNER_FUSED_CPU_PADDED_MLP_H_
