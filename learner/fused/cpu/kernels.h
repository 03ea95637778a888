#ifndef TROUPE_LEARNER_FUSED_CPU_KERNELS_H_
#define TROUPE_LEARNER_FUSED_CPU_KERNELS_H_

#include <cstdint>

#include "learner/fused/layer_norm.h"

namespace troupe::cpu {

// The loops that the CPU engine spends its time in, compiled once for each instruction set; the
// machine's best is chosen at run time.
//
// This header and all that the kernels include define no inline function: the linker would keep one
// copy of it, maybe one that this machine cannot execute.
//
// Matrices are row-major.  Rows start at multiples of kRowFloats floats and have room for a width
// that is rounded up to it, as kernels read and write whole vectors; vectors likewise.  What lies
// in the room of parameters, gradients and moments is zero, and stays so.
inline constexpr int64_t kRowFloats = 16;
inline constexpr int64_t kAlignmentBytes = kRowFloats * sizeof(float);

enum class Unit : int32_t { kLinear, kRelu, kTanh, kElu };

// What becomes of a product before it is stored.
enum class Finish : int32_t {
  kStore,
  kActivate,  // the unit's value
  kSlope,     // times the unit's derivative where its value is `h`
};

// C = finish(A B + bias), or C += A B.
struct Product {
  int64_t m = 0, n = 0, k = 0;  // C is [m, n], and computed in the room of its rows as well
  const float* a = nullptr;     // [m, k]; transposed: [k, m]
  int64_t a_stride = 0;         // floats from row to row, as all strides
  bool a_transposed = false;
  const float* b = nullptr;  // [k, n]
  int64_t b_stride = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  bool add = false;             // += ; only with kStore and no bias
  const float* bias = nullptr;  // [n]; nullptr: none
  Finish finish = Finish::kStore;
  Unit unit = Unit::kLinear;
  const float* h = nullptr;  // kSlope
  int64_t h_stride = 0;
  const int32_t* h_rows = nullptr;  // [m], which row of h goes with which of C; nullptr: the same
};

// One step of Adam (Kingma and Ba, arXiv 1412.6980) on vectors of n floats.
struct AdamPass {
  int64_t n = 0;
  float* const* gradients = nullptr;  // their sum is the gradient; the first is overwritten
  int64_t num_gradients = 1;
  int64_t gradient_offset = 0;  // of their first floats that are meant
  float gradient_scale = 1;     // the gradient is multiplied by this
  float* values = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  float rate = 0;          // the learning rate / the first moment's bias correction
  float inverse_root = 0;  // 1 / sqrt of the second moment's
  float epsilon = 0;
  float* targets = nullptr;  // += tau (the new value - the target); nullptr: none
  float tau = 0;
};

// Actions a = tanh(mean + sigma noise) of a squashed Gaussian, element by element.
struct SquashPass {
  int64_t n = 0;                   // elements
  const float* mean = nullptr;     // overwritten by nobody
  const float* log_std = nullptr;  // as the network gives it
  const float* noise = nullptr;    // standard normal
  float log_std_min = 0, log_std_max = 0;
  float* action = nullptr;
  float* spread = nullptr;    // sigma noise
  float* is_free = nullptr;   // 1 where log sigma is within its bounds, 0 where it is clamped
  float* log_prob = nullptr;  // the element's part of log pi(a|s)
};

// LayerNorm (Ba et al., arXiv 1607.06450) of rows of n floats, and the unit behind it.
struct NormPass {
  int64_t rows = 0, n = 0, stride = 0;
  const float *gain = nullptr, *bias = nullptr;  // [n]
  Unit unit = Unit::kLinear;
  float* h = nullptr;                  // [rows, n], from a layer's sums to its values
  float* normalized = nullptr;         // [rows, n], before gain and bias
  float* inverse_deviation = nullptr;  // [rows]
};

// From the gradient by what LayerNorm gave, before the unit, to that by what it was given.
struct NormBackPass {
  int64_t rows = 0, n = 0, stride = 0;
  const float* gain = nullptr;
  const float *normalized = nullptr, *inverse_deviation = nullptr;  // as the pass forward left them
  const int32_t* from_rows = nullptr;  // [rows], whose they are; nullptr: the same rows
  float* d = nullptr;                  // [rows, n]
  float *gain_gradient = nullptr, *bias_gradient = nullptr;  // [n]; nullptr: not wanted
};

struct Kernels {
  const char* name;

  void (*multiply)(const Product& product);
  // y[r] = h[r] . w + bias;  h: [rows, n].
  void (*dot_rows)(const float* h, int64_t h_stride, int64_t rows, int64_t n, const float* w,
                   float bias, float* y);
  // d[r][j] = g[r] w[j] unit'(h[i][j]), i = r or h_rows[r].
  void (*spread_rows)(const float* g, const float* w, const float* h, int64_t h_stride,
                      const int32_t* h_rows, int64_t rows, int64_t n, Unit unit, float* d,
                      int64_t d_stride);
  // sums[j] = or += the sum over r of g[r] d[r][j]; g == nullptr: of d[r][j].
  void (*sum_rows)(const float* g, const float* d, int64_t d_stride, int64_t rows, int64_t n,
                   bool add, float* sums);
  // to[j][i] = from[i][j], i < rows, j < n; the rest of to's rows, up to their room, becomes 0.
  void (*transpose)(const float* from, int64_t from_stride, int64_t rows, int64_t n, float* to,
                    int64_t to_stride);
  void (*adam)(const AdamPass& pass);
  void (*squash)(const SquashPass& pass);
  void (*normalize)(const NormPass& pass);
  void (*normalize_back)(const NormBackPass& pass);
  // Sum of squares.
  double (*sum_squares)(const float* x, int64_t n);
  // Words 0 and 1 of Philox4x32-10 (philox.h) for the counters {first + i, what, update}, i < n.
  void (*draw_words)(uint64_t seed, uint64_t update, uint32_t what, uint32_t first, int64_t n,
                     uint32_t* word0, uint32_t* word1);
  // Standard normal numbers of those words (Box and Muller 1958).
  void (*normals)(const uint32_t* word0, const uint32_t* word1, int64_t n, float* normals);

  // y[i] = f(x[i]); y may be x.
  void (*tanh)(const float* x, int64_t n, float* y);
  void (*exp)(const float* x, int64_t n, float* y);
  void (*log)(const float* x, int64_t n, float* y);
  void (*elu)(const float* x, int64_t n, float* y);
};

enum class InstructionSet { kPortable, kAvx2, kAvx512 };

// nullptr: not in this build, or not on this machine.
const Kernels* KernelsFor(InstructionSet set);
// Those of the widest vectors that this machine has.
const Kernels& BestKernels();

}  // namespace troupe::cpu

#endif  // TROUPE_LEARNER_FUSED_CPU_KERNELS_H_
