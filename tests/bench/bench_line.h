#ifndef TROUPE_TESTS_BENCH_BENCH_LINE_H_
#define TROUPE_TESTS_BENCH_BENCH_LINE_H_

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace troupe {

// Such as "AMD EPYC 7763 x 2".
inline std::string Machine() {
  std::ifstream info("/proc/cpuinfo");
  std::string model = "unknown processor";
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) model = line.substr(line.find(": ") + 2);
  }
  return model + " x " + std::to_string(std::thread::hardware_concurrency());
}

// REQUIRES: not empty.
inline double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace troupe

#endif  // TROUPE_TESTS_BENCH_BENCH_LINE_H_
