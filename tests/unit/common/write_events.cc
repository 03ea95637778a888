// Writes scalars for read_events_test.py, which knows the same formula.
#include <cmath>
#include <cstdio>

#include "common/event_writer.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  auto writer = troupe::EventWriter::Create(argv[1]);
  if (!writer.ok()) return 1;
  for (int step = 0; step < 1000; ++step) {
    const absl::Time time = absl::FromUnixSeconds(1700000000 + step);
    if (!(*writer)->WriteScalar("loss/q", step * 1000000LL, std::sin(step), time).ok()) return 1;
    if (!(*writer)->WriteScalar("evaluation/return", step, step * -0.5, time).ok()) return 1;
  }
  return (*writer)->Flush().ok() ? 0 : 1;
}
