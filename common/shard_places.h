#ifndef TROUPE_COMMON_SHARD_PLACES_H_
#define TROUPE_COMMON_SHARD_PLACES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace troupe {

// Where a shard is.
struct ShardPlace {
  std::string target;   // host:port, as configured
  std::string address;  // host:port, the host in numbers where `target` is a name
  uint64_t id = 0;      // of the shard; 0: whoever is there
  int64_t moves = 0;    // from one address to another
  bool listed = true;   // one of its addresses belongs to the name
  bool suspect = false;
};

// An address of a name, and who answered there.
struct Sighting {
  std::string target;
  std::string address;
  std::optional<uint64_t> id = {};  // none: not asked; 0: no answer
};

// Which shards were ever seen, and where each was seen last.  Shards are numbered from 0 on, and
// only added.  Not thread-safe.
class ShardPlaces final {
 public:
  // One that is at `target`, for good.
  void AddFixed(const std::string& target);
  // Takes in a look at all addresses that all names have now; true: a shard is new, or elsewhere.
  bool Apply(const std::vector<Sighting>& sightings);
  // Who is at `address` is not known, or not for sure.
  bool MustAsk(const std::string& address) const;
  void Suspect(size_t shard) { shards_[shard].suspect = shards_[shard].id != 0; }

  bool AnySuspect() const;

  const std::vector<ShardPlace>& shards() const { return shards_; }
  // As ShardDirectory::Choose.
  size_t Choose(uint64_t index) const;

 private:
  size_t FindOrAdd(const Sighting& sighting);
  // Moves shards that are not where they were, if it is known where they are.
  bool Settle(const std::vector<Sighting>& sightings);

  std::vector<ShardPlace> shards_;
  absl::flat_hash_map<std::string, size_t> shard_at_;  // by address
};

}  // namespace troupe

#endif  // TROUPE_COMMON_SHARD_PLACES_H_
