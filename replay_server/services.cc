#include "replay_server/services.h"

#include "replay_server/append_call.h"
#include "replay_server/publish_call.h"
#include "replay_server/sample_call.h"
#include "replay_server/subscribe_call.h"

namespace troupe {

grpc::ServerBidiReactor<proto::AppendRequest, proto::AppendReply>* ReplayService::Append(
    grpc::CallbackServerContext* context) {
  return AppendCall::Start(shard_);
}

grpc::ServerBidiReactor<proto::SampleRequest, proto::SampleReply>* ReplayService::Sample(
    grpc::CallbackServerContext* context) {
  return SampleCall::Start(shard_);
}

grpc::ServerUnaryReactor* ReplayService::Describe(grpc::CallbackServerContext* context,
                                                  const proto::DescribeRequest* request,
                                                  proto::DescribeReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::Status status = shard_->CheckServing();
  if (status.ok()) status = shard_->CheckRun(request->run());
  if (status.ok()) *reply = shard_->Describe();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

grpc::ServerReadReactor<proto::SnapshotChunk>* WeightsService::Publish(
    grpc::CallbackServerContext* context, proto::PublishReply* reply) {
  return PublishCall::Start(shard_, reply);
}

grpc::ServerWriteReactor<proto::SnapshotChunk>* WeightsService::Subscribe(
    grpc::CallbackServerContext* context, const proto::SubscribeRequest* request) {
  return SubscribeCall::Start(shard_, *request);
}

}  // namespace troupe
