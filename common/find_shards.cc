#include "common/find_shards.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>

#include "absl/time/clock.h"

namespace troupe {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(200);
constexpr absl::Duration kBetweenMessages = absl::Seconds(10);

}  // namespace

absl::StatusOr<std::shared_ptr<ShardDirectory>> FindShards(const Program& program) {
  ShardDirectoryOptions options;
  options.targets = {program.config.shards().begin(), program.config.shards().end()};
  options.credentials = program.credentials;
  options.log = [](const std::string& found) { spdlog::info("{}", found); };
  auto directory = ShardDirectory::Create(std::move(options));
  if (!directory.ok()) return directory.status();
  absl::Time next_message = absl::Now() + kBetweenMessages;
  while (!program.stop.requested()) {
    const absl::Status found = (*directory)->WaitForShards(absl::Now() + kPoll);
    if (found.ok()) return *std::move(directory);
    if (absl::Now() < next_message) continue;
    spdlog::info("waiting for shards: {}", std::string(found.message()));
    next_message = absl::Now() + kBetweenMessages;
  }
  return absl::CancelledError("stopped before a shard was found");
}

}  // namespace troupe
