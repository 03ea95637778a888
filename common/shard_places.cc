#include "common/shard_places.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"

namespace troupe {

void ShardPlaces::AddFixed(const std::string& target) {
  shards_.push_back({.target = target, .address = target});
}

bool ShardPlaces::MustAsk(const std::string& address) const {
  const auto found = shard_at_.find(address);
  return found == shard_at_.end() || shards_[found->second].suspect;
}

size_t ShardPlaces::FindOrAdd(const Sighting& sighting) {
  const auto found = std::find_if(shards_.begin(), shards_.end(), [&](const ShardPlace& shard) {
    return shard.id == *sighting.id;
  });
  if (found != shards_.end()) return found - shards_.begin();
  shards_.push_back({.target = sighting.target, .address = sighting.address, .id = *sighting.id});
  return shards_.size() - 1;
}

bool ShardPlaces::Apply(const std::vector<Sighting>& sightings) {
  const size_t known = shards_.size();
  absl::flat_hash_set<size_t> seen_elsewhere;
  absl::flat_hash_set<size_t> confirmed;
  for (const Sighting& sighting : sightings) {
    if (sighting.id.value_or(0) == 0) continue;
    const size_t shard = FindOrAdd(sighting);
    const auto [at, is_new] = shard_at_.try_emplace(sighting.address, shard);
    if (shards_[shard].address == sighting.address) confirmed.insert(shard);
    if (is_new || at->second != shard) seen_elsewhere.insert(shard);
    at->second = shard;
  }
  // Who turns up somewhere else may have left where it was to another one.
  for (const size_t shard : seen_elsewhere) shards_[shard].suspect = true;
  for (const size_t shard : confirmed) shards_[shard].suspect = false;
  return Settle(sightings) || shards_.size() > known;
}

bool ShardPlaces::AnySuspect() const {
  return std::any_of(shards_.begin(), shards_.end(),
                     [](const ShardPlace& shard) { return shard.suspect; });
}

bool ShardPlaces::Settle(const std::vector<Sighting>& sightings) {
  bool moved = false;
  for (size_t i = 0; i < shards_.size(); ++i) {
    ShardPlace& shard = shards_[i];
    if (shard.id == 0) continue;
    shard.listed = false;
    const Sighting* elsewhere = nullptr;
    bool is_there = false;
    for (const Sighting& sighting : sightings) {
      const auto at = shard_at_.find(sighting.address);
      if (at == shard_at_.end() || at->second != i) continue;
      shard.listed = true;
      if (sighting.id == uint64_t{0}) continue;  // no answer
      is_there |= sighting.address == shard.address;
      if (sighting.address != shard.address) elsewhere = &sighting;
    }
    if (is_there || elsewhere == nullptr) continue;
    shard.target = elsewhere->target;
    shard.address = elsewhere->address;
    shard.suspect = false;
    ++shard.moves;
    moved = true;
  }
  return moved;
}

size_t ShardPlaces::Choose(uint64_t index) const {
  std::vector<size_t> order;
  for (const bool listed : {true, false}) {
    for (size_t i = 0; i < shards_.size(); ++i) {
      if (shards_[i].listed == listed) order.push_back(i);
    }
    if (!order.empty()) break;
  }
  // Fixed ones in their order, then the others, in which processes come to know them in any.
  std::stable_sort(order.begin(), order.end(),
                   [this](size_t a, size_t b) { return shards_[a].id < shards_[b].id; });
  return order[index % order.size()];
}

}  // namespace troupe
