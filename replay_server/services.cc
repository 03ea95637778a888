#include "replay_server/services.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "replay_server/append_call.h"
#include "replay_server/backup.h"
#include "replay_server/follow_call.h"
#include "replay_server/publish_call.h"
#include "replay_server/roles.h"
#include "replay_server/sample_call.h"
#include "replay_server/subscribe_call.h"

namespace troupe {
namespace {

// A call that ends before it has begun.
template <typename Reactor>
class RefusedCall final : public Reactor {
 public:
  explicit RefusedCall(const absl::Status& why) { this->Finish(ToGrpc(why)); }
  void OnDone() override { delete this; }
};

// UNAVAILABLE: the call names another shard; who made it is to look for that one elsewhere.
absl::Status CheckShard(const Shard& shard, const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto named = metadata.find("troupe-shard");
  if (named == metadata.end()) return absl::OkStatus();
  const std::string wanted(named->second.data(), named->second.size());
  const std::string id = absl::StrCat(absl::Hex(shard.id()));
  if (wanted == id) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("this is shard ", id, ", not ", wanted));
}

// The call of `start`, unless its peer may not make it, or not here.
template <typename Reactor, typename Start>
Reactor* IfAllowed(const Shard& shard, bool has_roles, const grpc::CallbackServerContext& context,
                   absl::string_view method, const Start& start) {
  absl::Status status = has_roles ? CheckRole(context, method) : absl::OkStatus();
  if (status.ok()) status = CheckShard(shard, context);
  if (!status.ok()) {
    shard.NoteEnd(status);
    return new RefusedCall<Reactor>(status);
  }
  return start();
}

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ReplayService::Append(
    grpc::CallbackServerContext* context) {
  return IfAllowed<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>>(
      *shard_, has_roles_, *context, "Append",
      [&] { return AppendCall::Start(shard_, PeerOf(*context)); });
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ReplayService::Sample(
    grpc::CallbackServerContext* context) {
  return IfAllowed<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>>(
      *shard_, has_roles_, *context, "Sample",
      [&] { return SampleCall::Start(shard_, PeerOf(*context)); });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ReplayService::Follow(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return IfAllowed<grpc::ServerWriteReactor<grpc::ByteBuffer>>(
      *shard_, has_roles_, *context, "Follow",
      [&] { return FollowCall::Start(shard_, PeerOf(*context), *request); });
}

template <typename Request>
absl::StatusOr<Table*> ReplayService::TableOf(const Request& request) const {
  if (absl::Status status = shard_->CheckServing(); !status.ok()) return status;
  if (absl::Status status = shard_->CheckRun(request.run()); !status.ok()) return status;
  return shard_->FindTable(request.table());
}

grpc::ServerUnaryReactor* ReplayService::UpdatePriorities(
    grpc::CallbackServerContext* context, const proto::UpdatePrioritiesRequest* request,
    proto::UpdatePrioritiesReply* reply) {
  return IfAllowed<grpc::ServerUnaryReactor>(
      *shard_, has_roles_, *context, "UpdatePriorities", [&] {
        grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
        reactor->Finish(ToGrpc([&] {
          const absl::StatusOr<Table*> table = TableOf(*request);
          if (!table.ok()) return table.status();
          const auto outcome = (*table)->UpdatePriorities(request->priorities());
          if (!outcome.ok()) return outcome.status();
          reply->set_updated(outcome->updated);
          reply->set_unknown(outcome->unknown);
          return absl::OkStatus();
        }()));
        return reactor;
      });
}

grpc::ServerUnaryReactor* ReplayService::RequestUnrolls(grpc::CallbackServerContext* context,
                                                        const proto::RequestUnrollsRequest* request,
                                                        proto::RequestUnrollsReply* reply) {
  return IfAllowed<grpc::ServerUnaryReactor>(*shard_, has_roles_, *context, "RequestUnrolls", [&] {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc([&] {
      const absl::StatusOr<Table*> table = TableOf(*request);
      if (!table.ok()) return table.status();
      uint32_t writers = 0;
      shard_->calls().ForEach(
          [&](Call& call) { writers += call.RequestUnrolls(*table, request->policy_version()); });
      reply->set_writers(writers);
      return absl::OkStatus();
    }()));
    return reactor;
  });
}

grpc::ServerUnaryReactor* ReplayService::Backup(grpc::CallbackServerContext* context,
                                                const proto::BackupRequest* request,
                                                proto::BackupReply* reply) {
  return IfAllowed<grpc::ServerUnaryReactor>(*shard_, has_roles_, *context, "Backup", [&] {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    // The server waits for its calls before the shard goes, and so for this.
    shard_->backup_writer().Post([this, context, request, reply, reactor] {
      const auto stopped = [&] { return context->IsCancelled() || !shard_->CheckServing().ok(); };
      absl::Status status = shard_->CheckServing();
      if (status.ok()) status = shard_->CheckRun(request->run());
      if (status.ok()) {
        absl::StatusOr<proto::BackupReply> backup =
            troupe::Backup(shard_, request->name(), stopped);
        status = backup.status();
        if (backup.ok()) *reply = *std::move(backup);
      }
      reactor->Finish(ToGrpc(status));
    });
    return reactor;
  });
}

grpc::ServerUnaryReactor* ReplayService::Identify(grpc::CallbackServerContext* context,
                                                  const proto::IdentifyRequest* request,
                                                  proto::IdentifyReply* reply) {
  return IfAllowed<grpc::ServerUnaryReactor>(*shard_, has_roles_, *context, "Identify", [&] {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const absl::Status status = shard_->CheckServing();
    reply->set_shard(shard_->id());
    reactor->Finish(ToGrpc(status));
    return reactor;
  });
}

grpc::ServerUnaryReactor* ReplayService::Describe(grpc::CallbackServerContext* context,
                                                  const proto::DescribeRequest* request,
                                                  proto::DescribeReply* reply) {
  return IfAllowed<grpc::ServerUnaryReactor>(*shard_, has_roles_, *context, "Describe", [&] {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    absl::Status status = shard_->CheckServing();
    if (status.ok()) status = shard_->CheckRun(request->run());
    if (status.ok()) *reply = shard_->Describe(request->with_calls());
    reactor->Finish(ToGrpc(status));
    return reactor;
  });
}

grpc::ServerUnaryReactor* ReplayService::Drain(grpc::CallbackServerContext* context,
                                               const proto::DrainRequest* request,
                                               proto::DrainReply* reply) {
  return IfAllowed<grpc::ServerUnaryReactor>(*shard_, has_roles_, *context, "Drain", [&] {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    absl::Status status = shard_->CheckServing();
    if (status.ok()) status = shard_->CheckRun(request->run());
    if (status.ok()) reply->set_writers_to_drain(shard_->SetDraining(!request->undo()));
    reactor->Finish(ToGrpc(status));
    return reactor;
  });
}

grpc::ServerReadReactor<proto::SnapshotChunk>* WeightsService::Publish(
    grpc::CallbackServerContext* context, proto::PublishReply* reply) {
  return IfAllowed<grpc::ServerReadReactor<proto::SnapshotChunk>>(
      *shard_, has_roles_, *context, "Publish",
      [&] { return PublishCall::Start(shard_, PeerOf(*context), reply); });
}

grpc::ServerWriteReactor<proto::SnapshotChunk>* WeightsService::Subscribe(
    grpc::CallbackServerContext* context, const proto::SubscribeRequest* request) {
  return IfAllowed<grpc::ServerWriteReactor<proto::SnapshotChunk>>(
      *shard_, has_roles_, *context, "Subscribe",
      [&] { return SubscribeCall::Start(shard_, PeerOf(*context), *request); });
}

}  // namespace troupe
