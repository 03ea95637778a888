#include "tests/bench/replay/measure.h"

#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <numeric>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

double TickSeconds() { return 1.0 / static_cast<double>(sysconf(_SC_CLK_TCK)); }

double Seconds(const timeval& time) { return time.tv_sec + time.tv_usec * 1e-6; }

double ProcessCpu(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string text;
  std::getline(file, text);
  // The fields after the name, which ends with the last ')'; user and system time are 12 and 13.
  std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) * TickSeconds();
}

}  // namespace

CpuTimes ReadCpuTimes(pid_t server_pid) {
  CpuTimes times;
  times.at = Clock::now();
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  times.client = Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
  if (server_pid != 0) times.server = ProcessCpu(server_pid);
  // user, nice, system, idle, iowait, irq, softirq, steal
  std::ifstream stat("/proc/stat");
  std::string name;
  std::array<double, 8> ticks{};
  stat >> name;
  for (double& tick : ticks) stat >> tick;
  times.machine = std::accumulate(ticks.begin(), ticks.end(), 0.0) * TickSeconds();
  times.idle = (ticks[3] + ticks[4]) * TickSeconds();
  times.steal = ticks[7] * TickSeconds();
  return times;
}

}  // namespace troupe
