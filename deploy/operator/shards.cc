#include "deploy/operator/shards.h"

#include <chrono>
#include <deque>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/channel.h"
#include "common/shard_directory.h"

namespace troupe {
namespace {

// How soon a requested stop is noticed.
constexpr absl::Duration kStopCheck = absl::Milliseconds(20);
// How long names are looked up and who is there is asked.
constexpr absl::Duration kFindPatience = absl::Seconds(5);

// Cancels the calls if a stop is requested before `done`.
void CancelOnStop(const StopToken& stop, const absl::Notification& done,
                  std::deque<grpc::ClientContext>* contexts) {
  while (!done.WaitForNotificationWithTimeout(kStopCheck)) {
    if (!stop.requested()) continue;
    for (grpc::ClientContext& context : *contexts) context.TryCancel();
    return;
  }
}

}  // namespace

absl::StatusOr<std::vector<ShardContact>> LinkShards(const Program& program) {
  if (program.config.shards_size() == 0) {
    return absl::InvalidArgumentError(
        "no shards: give --config, or --set shards=host:port,host:port");
  }
  const std::vector<std::string> targets(program.config.shards().begin(),
                                         program.config.shards().end());
  auto directory = ShardDirectory::Create({.targets = targets, .credentials = program.credentials});
  if (!directory.ok()) return directory.status();
  // What is missing then will not answer either, and is told of as that.
  (*directory)->WaitForShards(absl::Now() + kFindPatience).IgnoreError();
  std::vector<ShardContact> links;
  std::set<std::string> missing(targets.begin(), targets.end());
  for (size_t i = 0; i < (*directory)->size(); ++i) {
    const ShardPlace place = (*directory)->Place(i);
    missing.erase(place.target);
    links.push_back({.address = (*directory)->Name(i),
                     .stub = proto::Replay::NewStub((*directory)->MakeChannelTo(place))});
  }
  for (const std::string& target : missing) {
    auto channel = MakeChannel(target, *program.credentials);
    if (!channel.ok()) return channel.status();
    links.push_back({.address = target, .stub = proto::Replay::NewStub(*std::move(channel))});
  }
  return links;
}

std::vector<absl::Status> CallAll(const std::vector<ShardContact>& links, const std::string& what,
                                  absl::Duration timeout, const StopToken& stop,
                                  const ShardCall& call) {
  std::deque<grpc::ClientContext> contexts(links.size());
  std::vector<absl::Status> statuses(links.size());
  absl::Notification done;
  std::thread canceller([&] { CancelOnStop(stop, done, &contexts); });
  std::vector<std::thread> callers;
  for (size_t i = 0; i < links.size(); ++i) {
    if (timeout < absl::InfiniteDuration()) {
      contexts[i].set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    }
    callers.emplace_back(
        [&, i] { statuses[i] = FromGrpc(call(i, &contexts[i]), what, links[i].address); });
  }
  for (std::thread& caller : callers) caller.join();
  done.Notify();
  canceller.join();
  return statuses;
}

absl::Status AllOf(const std::vector<absl::Status>& statuses) {
  absl::Status all;
  for (const absl::Status& status : statuses) {
    if (status.ok()) continue;
    // INVALID_ARGUMENT would say that this program's flags are wrong.
    const absl::StatusCode code =
        absl::IsInvalidArgument(status) ? absl::StatusCode::kFailedPrecondition : status.code();
    all = all.ok() ? absl::Status(code, status.message())
                   : absl::Status(all.code(), absl::StrCat(all.message(), "\n", status.message()));
  }
  return all;
}

}  // namespace troupe
