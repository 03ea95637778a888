#ifndef TROUPE_REPLAY_SERVER_SERVICES_H_
#define TROUPE_REPLAY_SERVER_SERVICES_H_

#include "absl/status/statusor.h"
#include "proto/replay.grpc.pb.h"
#include "proto/weights.grpc.pb.h"
#include "replay_server/shard.h"

namespace troupe {

// The wire's side of a shard: each method starts the call that does the work.  Thread-safe.
class ReplayService final
    : public proto::Replay::WithRawCallbackMethod_Append<
          proto::Replay::WithRawCallbackMethod_Sample<proto::Replay::WithRawCallbackMethod_Follow<
              proto::Replay::WithCallbackMethod_UpdatePriorities<
                  proto::Replay::WithCallbackMethod_RequestUnrolls<
                      proto::Replay::WithCallbackMethod_Backup<
                          proto::Replay::WithCallbackMethod_Identify<
                              proto::Replay::WithCallbackMethod_Describe<
                                  proto::Replay::WithCallbackMethod_Drain<
                                      proto::Replay::Service>>>>>>>>> {
 public:
  // `has_roles`: its peers show certificates, and may call what their role may (roles.h).
  ReplayService(Shard* shard, bool has_roles) : shard_(shard), has_roles_(has_roles) {}

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Append(
      grpc::CallbackServerContext* context) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Sample(
      grpc::CallbackServerContext* context) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Follow(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* UpdatePriorities(grpc::CallbackServerContext* context,
                                             const proto::UpdatePrioritiesRequest* request,
                                             proto::UpdatePrioritiesReply* reply) override;
  grpc::ServerUnaryReactor* RequestUnrolls(grpc::CallbackServerContext* context,
                                           const proto::RequestUnrollsRequest* request,
                                           proto::RequestUnrollsReply* reply) override;
  grpc::ServerUnaryReactor* Backup(grpc::CallbackServerContext* context,
                                   const proto::BackupRequest* request,
                                   proto::BackupReply* reply) override;
  grpc::ServerUnaryReactor* Identify(grpc::CallbackServerContext* context,
                                     const proto::IdentifyRequest* request,
                                     proto::IdentifyReply* reply) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const proto::DescribeRequest* request,
                                     proto::DescribeReply* reply) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const proto::DrainRequest* request,
                                  proto::DrainReply* reply) override;

 private:
  // The table that a unary request names, if this shard serves its run.
  template <typename Request>
  absl::StatusOr<Table*> TableOf(const Request& request) const;

  Shard* const shard_;
  const bool has_roles_;
};

class WeightsService final : public proto::Weights::CallbackService {
 public:
  WeightsService(Shard* shard, bool has_roles) : shard_(shard), has_roles_(has_roles) {}

  grpc::ServerReadReactor<proto::SnapshotChunk>* Publish(grpc::CallbackServerContext* context,
                                                         proto::PublishReply* reply) override;
  grpc::ServerWriteReactor<proto::SnapshotChunk>* Subscribe(
      grpc::CallbackServerContext* context, const proto::SubscribeRequest* request) override;

 private:
  Shard* const shard_;
  const bool has_roles_;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SERVICES_H_
