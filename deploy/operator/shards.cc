#include "deploy/operator/shards.h"

#include <chrono>
#include <deque>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/channel.h"

namespace troupe {
namespace {

// How soon a requested stop is noticed.
constexpr absl::Duration kStopCheck = absl::Milliseconds(20);

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

absl::StatusOr<std::vector<ShardLink>> LinkShards(const Program& program) {
  if (program.config.shards_size() == 0) {
    return absl::InvalidArgumentError(
        "no shards: give --config, or --set shards=host:port,host:port");
  }
  std::vector<ShardLink> links;
  for (const std::string& address : program.config.shards()) {
    auto channel = MakeChannel(address, *program.credentials);
    if (!channel.ok()) return channel.status();
    links.push_back({.address = address, .stub = proto::Replay::NewStub(*std::move(channel))});
  }
  return links;
}

std::vector<absl::Status> CallAll(const std::vector<ShardLink>& links, const std::string& what,
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
