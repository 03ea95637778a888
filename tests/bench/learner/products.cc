#include "tests/bench/learner/products.h"

#include <torch/torch.h>

#include <vector>

#include "absl/time/clock.h"

namespace troupe {
namespace {

using torch::Tensor;

constexpr int64_t kWidth = 256;

// One product, with its result's memory.
struct Product {
  Tensor a, b, c;
};

class Products {
 public:
  // c[m, n] = a[m, k] b[k, n], each stored as it is in an update.
  void Add(int64_t times, int64_t m, int64_t k, int64_t n, bool a_transposed, bool b_transposed) {
    for (; times > 0; --times) {
      const Tensor a = a_transposed ? torch::rand({k, m}).t() : torch::rand({m, k});
      const Tensor b = b_transposed ? torch::rand({n, k}).t() : torch::rand({k, n});
      all_.push_back({a, b, torch::empty({m, n})});
    }
  }
  void AddForward(int64_t times, int64_t rows, int64_t inputs, int64_t outputs) {
    Add(times, rows, inputs, kWidth, false, false);
    Add(times, rows, kWidth, kWidth, false, false);
    Add(times, rows, kWidth, outputs, false, false);
  }
  // By the hidden layers' values, and by the weights of both.
  void AddBackward(int64_t times, int64_t rows) { Add(times, rows, kWidth, kWidth, false, true); }
  void AddWeights(int64_t times, int64_t rows, int64_t inputs) {
    Add(times, inputs, rows, kWidth, true, false);
    Add(times, kWidth, rows, kWidth, true, false);
  }
  void Multiply() {
    for (Product& p : all_) torch::mm_out(p.c, p.a, p.b);
  }

 private:
  std::vector<Product> all_;
};

}  // namespace

double ProductsPerSecond(int64_t observation, int64_t action, int64_t batch, int threads,
                         absl::Duration duration) {
  const torch::NoGradGuard no_grad;
  at::set_num_threads(threads);
  const int64_t inputs = observation + action;
  Products products;
  products.AddForward(2, batch, observation, 2 * action);  // of the policy, at s' and at s
  products.AddForward(6, batch, inputs, 1);  // of both targets, and twice of both critics
  products.AddBackward(5, batch);            // twice of both critics, and of the policy
  products.AddWeights(2, batch, inputs);
  products.AddWeights(1, batch, observation);
  products.Add(2, batch, kWidth, action, false, true);      // by the actions
  products.Add(1, batch, 2 * action, kWidth, false, true);  // by the policy's last layer
  products.Add(1, kWidth, batch, 2 * action, true, false);  // by its head's weights
  products.Multiply();
  int64_t count = 0;
  const absl::Time start = absl::Now();
  for (; absl::Now() - start < duration; ++count) products.Multiply();
  return static_cast<double>(count) / absl::ToDoubleSeconds(absl::Now() - start);
}

}  // namespace troupe
