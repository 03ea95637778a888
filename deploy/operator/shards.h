#ifndef TROUPE_DEPLOY_OPERATOR_SHARDS_H_
#define TROUPE_DEPLOY_OPERATOR_SHARDS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/program.h"
#include "grpcpp/client_context.h"
#include "proto/replay.grpc.pb.h"

namespace troupe {

// The way to one shard.
struct ShardContact {
  std::string address;  // host:port as configured and, behind a name, where it is
  std::unique_ptr<proto::Replay::Stub> stub;
};

// A way to each shard of the configuration, to every one behind each name, and to each name behind
// which none was found.  INVALID_ARGUMENT: it names none; FAILED_PRECONDITION as MakeChannel.
absl::StatusOr<std::vector<ShardContact>> LinkShards(const Program& program);

// One call to the shard with this number.
using ShardCall = std::function<grpc::Status(size_t shard, grpc::ClientContext* context)>;

// Calls all of `links` at once and waits for them; what each said, with `what` and the address
// before an error.  A requested stop cancels them.
std::vector<absl::Status> CallAll(const std::vector<ShardContact>& links, const std::string& what,
                                  absl::Duration timeout, const StopToken& stop,
                                  const ShardCall& call);

// OK if all are; else the first one's code, and a line for each that is not.
absl::Status AllOf(const std::vector<absl::Status>& statuses);

}  // namespace troupe

#endif  // TROUPE_DEPLOY_OPERATOR_SHARDS_H_
