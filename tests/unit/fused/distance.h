#ifndef TROUPE_TESTS_UNIT_FUSED_DISTANCE_H_
#define TROUPE_TESTS_UNIT_FUSED_DISTANCE_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace troupe {

// ||a - b|| / ||b||.
inline double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / std::max(norm, 1e-300));
}

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_FUSED_DISTANCE_H_
