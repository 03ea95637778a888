// The part of ReplayClient that says which shard a window is asked of.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "common/batch_split.h"
#include "common/replay_client_impl.h"

namespace troupe {

// By shard.  Where a window is sampled once, those that were asked for are as good as gone: a shard
// that is asked for more than it has would hold the request back while another one has some.
std::vector<double> ReplayClient::Impl::Masses() const {
  std::vector<double> masses;
  for (const Lane& lane : lanes_) {
    double mass = lane.up ? lane.mass : 0;
    if (options_.samples_once) {
      mass = std::max(0.0, std::floor(mass) - static_cast<double>(lane.num_asked));
    }
    masses.push_back(mass);
  }
  return masses;
}

double ReplayClient::Impl::TotalMass() const {
  const std::vector<double> masses = Masses();
  return std::accumulate(masses.begin(), masses.end(), 0.0);
}

// Splits what no shard was asked for, as far as shards have windows.
void ReplayClient::Impl::PlaceOrphans() {
  while (!orphans_.empty()) {
    const std::vector<double> masses = Masses();
    const double total = std::accumulate(masses.begin(), masses.end(), 0.0);
    if (total <= 0) return;
    Piece rest = orphans_.front();
    orphans_.pop_front();
    const std::vector<int64_t> counts = SplitByMass(rest.count, masses, random_);
    for (size_t i = 0; i < lanes_.size(); ++i) {
      int64_t count = counts[i];
      if (options_.samples_once) count = std::min(count, static_cast<int64_t>(masses[i]));
      if (count == 0) continue;
      lanes_[i].to_send.push_back({rest.batch, rest.first, count, masses[i] / total});
      lanes_[i].num_asked += count;
      rest.first += count;
      rest.count -= count;
    }
    if (rest.count > 0) orphans_.push_front(rest);
  }
}

}  // namespace troupe
