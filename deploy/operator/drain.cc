#include "deploy/operator/drain.h"

#include <iostream>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "deploy/operator/shards.h"

namespace troupe {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(10);
constexpr absl::Duration kAskAgain = absl::Milliseconds(100);

// The one link that --shard means.
absl::StatusOr<std::vector<ShardContact>> Choose(std::vector<ShardContact> links,
                                                 const std::string& shard) {
  uint32_t number = 0;
  const bool is_number = absl::SimpleAtoi(shard, &number);
  for (size_t i = 0; i < links.size(); ++i) {
    if (is_number ? i != number : links[i].address != shard) continue;
    std::vector<ShardContact> chosen;
    chosen.push_back(std::move(links[i]));
    return chosen;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--shard '", shard, "': give the number, 0 to ", links.size() - 1,
                   ", or the address of one of the configuration's shards"));
}

absl::StatusOr<uint32_t> AskToDrain(const std::vector<ShardContact>& link, bool undo,
                                    const StopToken& stop) {
  proto::DrainRequest request;
  request.set_undo(undo);
  proto::DrainReply reply;
  const std::vector<absl::Status> statuses =
      CallAll(link, undo ? "cannot undo the drain of" : "cannot drain", kCallTimeout, stop,
              [&](size_t shard, grpc::ClientContext* context) {
                return link[shard].stub->Drain(context, request, &reply);
              });
  if (absl::Status status = AllOf(statuses); !status.ok()) return status;
  return reply.writers_to_drain();
}

}  // namespace

absl::Status RunDrain(const Program& program, const DrainOptions& options) {
  absl::StatusOr<std::vector<ShardContact>> links = LinkShards(program);
  if (!links.ok()) return links.status();
  links = Choose(*std::move(links), options.shard);
  if (!links.ok()) return links.status();
  const std::string& address = links->front().address;
  const absl::Time deadline = absl::Now() + options.patience;
  while (true) {
    const absl::StatusOr<uint32_t> writers = AskToDrain(*links, options.undo, program.stop);
    if (!writers.ok()) return writers.status();
    if (options.undo || *writers == 0) break;
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          address, " drains, but ", *writers, " writers may still send rows (see troupe status); ",
          "ask again, or take it back with --undo"));
    }
    if (program.stop.WaitFor(kAskAgain)) return absl::CancelledError("stopped; the shard drains");
  }
  std::cout << address
            << (options.undo ? ": takes writers again"
                             : ": drained; it can be stopped without loss, and takes writers again "
                               "when it is restarted or after --undo")
            << std::endl;
  return absl::OkStatus();
}

}  // namespace troupe
