#include "learner/fused/cpu/kernels.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "learner/fused/philox.h"
#include "tests/unit/fused_cpu/aligned_rows.h"

namespace troupe::cpu {
namespace {

class CpuKernels : public EveryKernel {
 protected:
  int64_t Below(int64_t n) { return static_cast<int64_t>(engine_() % n); }
  // Mostly small, sometimes beyond all blocks.
  int64_t Size(int64_t large) { return 1 + (Below(4) == 0 ? Below(large) : Below(40)); }
  Unit AnyUnit() { return static_cast<Unit>(Below(4)); }
};

double Activate(Unit unit, double x) {
  if (unit == Unit::kRelu) return std::max(x, 0.0);
  if (unit == Unit::kTanh) return std::tanh(x);
  if (unit == Unit::kElu) return x > 0 ? x : std::expm1(x);
  return x;
}

double Slope(Unit unit, double h) {
  if (unit == Unit::kRelu) return h > 0 ? 1 : 0;
  if (unit == Unit::kTanh) return 1 - h * h;
  if (unit == Unit::kElu) return h > 0 ? 1 : h + 1;
  return 1;
}

// Rows 0 .. from - 1 in any order, with repetitions.
std::vector<int32_t> AnyRows(int64_t count, int64_t from, std::mt19937& engine) {
  std::vector<int32_t> rows(count);
  for (int32_t& row : rows) row = static_cast<int32_t>(engine() % from);
  return rows;
}

void ExpectRoomIsZero(const Rows& c) {
  for (int64_t i = 0; i < c.rows(); ++i) {
    for (int64_t j = c.width(); j < c.stride(); ++j) ASSERT_EQ(c(i, j), 0) << i << "," << j;
  }
}

TEST_P(CpuKernels, MultiplyMatricesOfEveryShape) {
  for (int trial = 0; trial < 400; ++trial) {
    Product p;
    p.m = Size(150), p.n = Size(300), p.k = Size(900);
    p.a_transposed = Below(2);
    p.add = Below(4) == 0;
    p.unit = AnyUnit();
    if (!p.add) p.finish = static_cast<Finish>(Below(3));
    const Rows a =
        p.a_transposed ? Rows::Random(p.k, p.m, engine_) : Rows::Random(p.m, p.k, engine_);
    const Rows b = Rows::Random(p.k, p.n, engine_), bias = Rows::Random(1, p.n, engine_);
    const Rows h = Rows::Random(p.m + 3, p.n, engine_);
    Rows c = Rows::Random(p.m, p.n, engine_);
    const Rows before = [&] {
      Rows copy(p.m, p.n);
      std::copy_n(c.data(), p.m * c.stride(), copy.data());
      return copy;
    }();
    const std::vector<int32_t> h_rows = AnyRows(p.m, h.rows(), engine_);
    const bool has_bias = !p.add && Below(2), picks = Below(2);
    p.a = a.data(), p.a_stride = a.stride();
    p.b = b.data(), p.b_stride = b.stride();
    p.c = c.data(), p.c_stride = c.stride();
    p.h = h.data(), p.h_stride = h.stride();
    if (has_bias) p.bias = bias.data();
    if (picks) p.h_rows = h_rows.data();
    kernels_->multiply(p);
    for (int64_t i = 0; i < p.m; ++i) {
      for (int64_t j = 0; j < p.n; ++j) {
        double sum = p.add ? before(i, j) : has_bias ? bias(0, j) : 0;
        for (int64_t k = 0; k < p.k; ++k)
          sum += 1.0 * (p.a_transposed ? a(k, i) : a(i, k)) * b(k, j);
        if (p.finish == Finish::kActivate) sum = Activate(p.unit, sum);
        if (p.finish == Finish::kSlope) sum *= Slope(p.unit, h(picks ? h_rows[i] : i, j));
        ASSERT_NEAR(c(i, j), sum, 2e-6 * static_cast<double>(p.k) + 2e-6)
            << p.m << "x" << p.n << "x" << p.k << " at " << i << "," << j << " trial " << trial;
      }
    }
    ExpectRoomIsZero(c);
  }
}

TEST_P(CpuKernels, PassesOverRowsEqualPlainLoops) {
  for (int trial = 0; trial < 200; ++trial) {
    const int64_t rows = Size(100), n = Size(300);
    const Unit unit = AnyUnit();
    const Rows h = Rows::Random(rows, n, engine_), w = Rows::Random(1, n, engine_);
    const Rows g = Rows::Random(1, rows, engine_);
    const std::vector<int32_t> h_rows = AnyRows(rows, rows, engine_);
    const bool picks = Below(2), weighs = Below(2), adds = Below(2);
    Rows y(1, rows), d(rows, n), sums = Rows::Random(1, n, engine_);
    const std::vector<float> sums_before(sums.data(), sums.data() + n);
    kernels_->dot_rows(h.data(), h.stride(), rows, n, w.data(), 0.5f, y.data());
    kernels_->spread_rows(g.data(), w.data(), h.data(), h.stride(), picks ? h_rows.data() : nullptr,
                          rows, n, unit, d.data(), d.stride());
    kernels_->sum_rows(weighs ? g.data() : nullptr, h.data(), h.stride(), rows, n, adds,
                       sums.data());
    for (int64_t i = 0; i < rows; ++i) {
      double dot = 0.5;
      for (int64_t j = 0; j < n; ++j) {
        dot += 1.0 * h(i, j) * w(0, j);
        const double slope = Slope(unit, h(picks ? h_rows[i] : i, j));
        ASSERT_NEAR(d(i, j), g(0, i) * w(0, j) * slope, 1e-6);
      }
      ASSERT_NEAR(y(0, i), dot, 1e-6 * static_cast<double>(n) + 1e-6);
    }
    for (int64_t j = 0; j < n; ++j) {
      double sum = adds ? sums_before[j] : 0;
      for (int64_t i = 0; i < rows; ++i) sum += (weighs ? g(0, i) : 1) * h(i, j);
      ASSERT_NEAR(sums(0, j), sum, 1e-6 * static_cast<double>(rows) + 1e-6);
    }
    ExpectRoomIsZero(d);
    ExpectRoomIsZero(sums);
  }
}

// One row's LayerNorm, and what it makes of the gradients `d` by its results, in doubles.
struct PlainNorm {
  std::vector<double> x;  // normalized
  double scale;           // 1 / deviation

  explicit PlainNorm(const Rows& z, int64_t row) : x(z.width()) {
    const auto n = static_cast<double>(z.width());
    double mean = 0, variance = 0;
    for (int64_t j = 0; j < z.width(); ++j) mean += z(row, j) / n;
    for (int64_t j = 0; j < z.width(); ++j) variance += std::pow(z(row, j) - mean, 2) / n;
    scale = 1 / std::sqrt(variance + kNormEpsilon);
    for (int64_t j = 0; j < z.width(); ++j) x[j] = (z(row, j) - mean) * scale;
  }

  double Back(const Rows& gain, const Rows& d, int64_t row, int64_t j) const {
    const auto n = static_cast<double>(x.size());
    double mean = 0, mean_x = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      mean += gain(0, i) * d(row, i) / n;
      mean_x += gain(0, i) * d(row, i) * x[i] / n;
    }
    return scale * (gain(0, j) * d(row, j) - mean - mean_x * x[j]);
  }
};

TEST_P(CpuKernels, LayerNormAndTheWayBackThroughItEqualPlainLoops) {
  for (int trial = 0; trial < 200; ++trial) {
    const int64_t rows = Size(50), n = 1 + Size(300);
    const Unit unit = AnyUnit();
    const Rows z = Rows::Random(rows, n, engine_), gain = Rows::Random(1, n, engine_);
    const Rows bias = Rows::Random(1, n, engine_), before = Rows::Random(rows, n, engine_);
    const std::vector<int32_t> picks = AnyRows(rows, rows, engine_);
    const bool has_picks = Below(2);
    Rows h(rows, n), x(rows, n), deviation(1, rows), d(rows, n);
    std::copy_n(z.data(), rows * z.stride(), h.data());
    std::copy_n(before.data(), rows * z.stride(), d.data());
    Rows sums(1, n), bias_sums(1, n);
    kernels_->normalize({.rows = rows,
                         .n = n,
                         .stride = z.stride(),
                         .gain = gain.data(),
                         .bias = bias.data(),
                         .unit = unit,
                         .h = h.data(),
                         .normalized = x.data(),
                         .inverse_deviation = deviation.data()});
    kernels_->normalize_back({.rows = rows,
                              .n = n,
                              .stride = z.stride(),
                              .gain = gain.data(),
                              .normalized = x.data(),
                              .inverse_deviation = deviation.data(),
                              .from_rows = has_picks ? picks.data() : nullptr,
                              .d = d.data(),
                              .gain_gradient = sums.data(),
                              .bias_gradient = bias_sums.data()});
    std::vector<double> gain_sums(n), plain_sums(n);
    for (int64_t i = 0; i < rows; ++i) {
      const PlainNorm plain(z, i), picked(z, has_picks ? picks[i] : i);
      const double tolerance = 1e-5 * std::max(1.0, picked.scale);
      for (int64_t j = 0; j < n; ++j) {
        ASSERT_NEAR(h(i, j), Activate(unit, plain.x[j] * gain(0, j) + bias(0, j)), 1e-4);
        ASSERT_NEAR(d(i, j), picked.Back(gain, before, i, j), tolerance) << rows << "x" << n;
        gain_sums[j] += before(i, j) * picked.x[j];
        plain_sums[j] += before(i, j);
      }
    }
    for (int64_t j = 0; j < n; ++j) {
      ASSERT_NEAR(sums(0, j), gain_sums[j], 1e-4);
      ASSERT_NEAR(bias_sums(0, j), plain_sums[j], 1e-4);
    }
    for (const Rows* all : {&d, &x, &sums, &bias_sums}) ExpectRoomIsZero(*all);
  }
}

TEST_P(CpuKernels, TransposeMovesEveryElementAndClearsTheRoom) {
  for (int trial = 0; trial < 100; ++trial) {
    const int64_t rows = Size(100), n = Size(100);
    const Rows from = Rows::Random(rows, n, engine_);
    Rows to = Rows::Random(n, rows, engine_);
    std::fill_n(to.data(), n * to.stride(), 9.0f);
    kernels_->transpose(from.data(), from.stride(), rows, n, to.data(), to.stride());
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < n; ++j) ASSERT_EQ(to(j, i), from(i, j));
    }
    ExpectRoomIsZero(to);
  }
}

TEST_P(CpuKernels, AdamStepsAsTheFormulaSays) {
  for (const int64_t n : {1, 15, 16, 17, 1024, 5000}) {
    Rows g0 = Rows::Random(1, n, engine_), g1 = Rows::Random(1, n, engine_),
         g2 = Rows::Random(1, n, engine_);
    Rows values = Rows::Random(1, n, engine_), targets = Rows::Random(1, n, engine_), m(1, n),
         v(1, n);
    std::vector<double> value(n), target(n), first(n), second(n);
    for (int64_t i = 0; i < n; ++i) value[i] = values(0, i), target[i] = targets(0, i);
    for (int step = 1; step <= 3; ++step) {
      const double rate = 0.01 / (1 - std::pow(0.9, step));
      const double inverse_root = 1 / std::sqrt(1 - std::pow(0.999, step));
      for (int64_t i = 0; i < n; ++i) {
        const double g = 0.5 * (1.0 * g0(0, i) + g1(0, i) + g2(0, i));
        first[i] = 0.9 * first[i] + 0.1 * g;
        second[i] = 0.999 * second[i] + 0.001 * g * g;
        value[i] -= rate * first[i] / (std::sqrt(second[i]) * inverse_root + 1e-5);
        target[i] += 0.25 * (value[i] - target[i]);
      }
      float* const gradients[] = {g0.data(), g1.data(), g2.data()};
      kernels_->adam({.n = n,
                      .gradients = gradients,
                      .num_gradients = 3,
                      .gradient_scale = 0.5f,
                      .values = values.data(),
                      .m = m.data(),
                      .v = v.data(),
                      .rate = static_cast<float>(rate),
                      .inverse_root = static_cast<float>(inverse_root),
                      .epsilon = 1e-5f,
                      .targets = targets.data(),
                      .tau = 0.25f});
      g0 = Rows::Random(1, n, engine_);
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_NEAR(values(0, i), value[i], 1e-5);
        ASSERT_NEAR(targets(0, i), target[i], 1e-5);
      }
    }
    ExpectRoomIsZero(values);
    ExpectRoomIsZero(targets);
  }
}

TEST_P(CpuKernels, SumsOfSquaresAreExactEnough) {
  const Rows x = Rows::Random(1, 5001, engine_);
  double sum = 0;
  for (int64_t i = 0; i < 5001; ++i) sum += 1.0 * x(0, i) * x(0, i);
  EXPECT_NEAR(kernels_->sum_squares(x.data(), 5001), sum, 1e-6 * sum);
}

TEST_P(CpuKernels, WordsAreThoseOfPhilox) {
  Rows word0(1, 37), word1(1, 37);
  auto* const x0 = reinterpret_cast<uint32_t*>(word0.data());
  auto* const x1 = reinterpret_cast<uint32_t*>(word1.data());
  for (int trial = 0; trial < 20; ++trial) {
    const uint64_t seed = uint64_t{engine_()} << 32 | engine_();
    const uint64_t update = uint64_t{engine_()} << 32 | engine_();
    const auto first = static_cast<uint32_t>(engine_());
    kernels_->draw_words(seed, update, static_cast<uint32_t>(Draw::kAction), first, 37, x0, x1);
    for (uint32_t i = 0; i < 37; ++i) {
      const RandomWords words = DrawWords(seed, update, Draw::kAction, first + i);
      ASSERT_EQ(x0[i], words.x[0]);
      ASSERT_EQ(x1[i], words.x[1]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, CpuKernels,
                         testing::Values(InstructionSet::kPortable, InstructionSet::kAvx2,
                                         InstructionSet::kAvx512),
                         SetName);

}  // namespace
}  // namespace troupe::cpu
