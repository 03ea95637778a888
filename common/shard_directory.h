#ifndef TROUPE_COMMON_SHARD_DIRECTORY_H_
#define TROUPE_COMMON_SHARD_DIRECTORY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/credentials.h"
#include "common/shard_places.h"
#include "grpcpp/channel.h"

namespace troupe {

// All addresses, host:port with the host in numbers, of the name in `target`, host:port.
absl::StatusOr<std::vector<std::string>> ResolveAll(const std::string& target);

struct ShardDirectoryOptions {
  std::vector<std::string> targets;  // host:port: addresses, or names of any number of shards each
  std::shared_ptr<const Credentials> credentials = Credentials::Plaintext();
  // Between two looks at the names: from `least` on while something is amiss, else `most`.
  absl::Duration least = absl::Milliseconds(250);
  absl::Duration most = absl::Seconds(5);
  // May still run when the directory is gone.
  std::function<absl::StatusOr<std::vector<std::string>>(const std::string& target)> resolve =
      ResolveAll;
  std::function<void(const std::string&)> log = [](const std::string&) {};  // what was found
};

// Which shards there are, and where each of them is now.
//
// A target that is an address ("127.0.0.1:7000", "localhost:7000") is one shard, for good.  A name
// is looked up again and again; whoever is at one of its addresses says which shard it is
// (Replay.Identify), so that a shard keeps its number here when its address changes.  Shards are
// numbered from 0 on and only ever added: one that is gone may come back with its rows.
//
// Thread-safe.  One thread looks up names, if there are any.
class ShardDirectory final {
 public:
  // INVALID_ARGUMENT: no targets; FAILED_PRECONDITION as MakeChannel.
  static absl::StatusOr<std::shared_ptr<ShardDirectory>> Create(ShardDirectoryOptions options);
  // `directory`, or if there is none, one in which each of `targets` is a shard, for good.
  static absl::StatusOr<std::shared_ptr<ShardDirectory>> OrFixed(
      std::shared_ptr<ShardDirectory> directory, const std::vector<std::string>& targets,
      std::shared_ptr<const Credentials> credentials);
  ~ShardDirectory();

  // Waits until there is a shard, and each address of each name has answered or some seconds have
  // passed since the first one did.  DEADLINE_EXCEEDED says what is missing.
  absl::Status WaitForShards(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);

  size_t size() const ABSL_LOCKS_EXCLUDED(mu_);
  ShardPlace Place(size_t shard) const ABSL_LOCKS_EXCLUDED(mu_);
  // For messages: the target and, of a name, the address.
  std::string Name(size_t shard) const ABSL_LOCKS_EXCLUDED(mu_);
  // Of all shards.
  std::string Names() const ABSL_LOCKS_EXCLUDED(mu_);
  // A shard for the process number `index`: the same for all that see the same shards, and evenly
  // for the numbers 0, 1, 2, ...  REQUIRES: there is a shard.
  size_t Choose(uint64_t index) const ABSL_LOCKS_EXCLUDED(mu_);
  // A call to the shard failed: it may be elsewhere.
  void Suspect(size_t shard) ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<grpc::Channel> MakeChannelTo(const ShardPlace& place) const;

  // Runs `changed` after each change, on the directory's thread, until RemoveListener returns.
  int AddListener(std::function<void()> changed) ABSL_LOCKS_EXCLUDED(listeners_mu_);
  void RemoveListener(int id) ABSL_LOCKS_EXCLUDED(listeners_mu_);

 private:
  explicit ShardDirectory(ShardDirectoryOptions options) : options_(std::move(options)) {}
  // Without a thread yet; `all_fixed`: every target is a shard, a name too.
  static absl::StatusOr<std::shared_ptr<ShardDirectory>> Make(ShardDirectoryOptions options,
                                                              bool all_fixed);

  bool Ready(absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // Looks at all names once; what is amiss, in words.
  std::string Look() ABSL_LOCKS_EXCLUDED(mu_);
  bool stopped() const ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<std::vector<std::string>> Resolve(const std::string& name) const
      ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<Sighting> ResolveNames(std::string* amiss);
  void Ask(std::vector<Sighting>* sightings, std::string* amiss) const ABSL_LOCKS_EXCLUDED(mu_);
  void Apply(const std::vector<Sighting>& sightings) ABSL_LOCKS_EXCLUDED(mu_);
  void LogChanges(const std::vector<ShardPlace>& before) const ABSL_LOCKS_EXCLUDED(mu_);

  const ShardDirectoryOptions options_;
  std::vector<std::string> names_;  // constant once the thread runs
  // The thread's alone: the addresses that a name had when it could last be looked up.
  absl::flat_hash_map<std::string, std::vector<std::string>> found_;

  mutable absl::Mutex mu_;
  ShardPlaces places_ ABSL_GUARDED_BY(mu_);
  std::string amiss_ ABSL_GUARDED_BY(mu_) = "nothing has answered yet";
  absl::Time first_found_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  bool hurry_ ABSL_GUARDED_BY(mu_) = false;  // somebody suspects a shard
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;

  absl::Mutex listeners_mu_;  // comes before mu_ and before what listeners lock
  absl::flat_hash_map<int, std::function<void()>> listeners_ ABSL_GUARDED_BY(listeners_mu_);
  int next_listener_ ABSL_GUARDED_BY(listeners_mu_) = 0;

  std::thread thread_;  // last, so that it sees the rest constructed
};

}  // namespace troupe

#endif  // TROUPE_COMMON_SHARD_DIRECTORY_H_
