#ifndef TROUPE_TESTS_INTEGRATION_REPLAY_SERVER_SHARD_CLIENT_H_
#define TROUPE_TESTS_INTEGRATION_REPLAY_SERVER_SHARD_CLIENT_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/crc32c.h"
#include "common/snapshot.h"
#include "grpcpp/create_channel.h"
#include "proto/replay.grpc.pb.h"
#include "proto/weights.grpc.pb.h"
#include "tests/unit/replay_server/rows.h"

namespace troupe {

inline std::shared_ptr<grpc::Channel> Connect(int port) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port),
                                   grpc::InsecureChannelCredentials(), arguments);
}

// An actor's side of one Append call; one thread.
class TestWriter final {
 public:
  explicit TestWriter(int port) : stub_(proto::Replay::NewStub(Connect(port))) {
    call_ = stub_->Append(&context_);
  }

  static proto::AppendRequest OpenRequest(std::vector<uint64_t> streams = {}) {
    proto::AppendRequest request;
    request.mutable_open()->set_run("run");
    request.mutable_open()->set_table("replay");
    *request.mutable_open()->mutable_layout() = TestLayoutProto();
    for (const uint64_t stream : streams) request.mutable_open()->add_streams(stream);
    return request;
  }

  bool Write(const proto::AppendRequest& request) { return call_->Write(request); }
  bool WriteRows(uint64_t stream, uint64_t first, uint64_t count) {
    proto::AppendRequest request;
    proto::RowRun* run = request.add_runs();
    run->set_stream(stream);
    run->set_first_row(first);
    run->set_rows(Rows(stream, first, count));
    return call_->Write(request);
  }
  // Opens the call; the rows held of `streams`.
  bool Open(std::vector<uint64_t> streams = {}) { return Write(OpenRequest(streams)) && Read(); }
  // Reads one reply into held().
  bool Read() {
    proto::AppendReply reply;
    if (!call_->Read(&reply)) return false;
    for (const proto::StreamAck& ack : reply.acks()) held_[ack.stream()] = ack.held_rows();
    if (reply.window_bytes() > 0) window_bytes_ = reply.window_bytes();
    return true;
  }
  // Reads until `rows` rows of the stream are acked.
  bool AwaitHeld(uint64_t stream, uint64_t rows) {
    while (held_[stream] < rows) {
      if (!Read()) return false;
    }
    return true;
  }
  uint64_t held(uint64_t stream) { return held_[stream]; }
  int64_t window_bytes() const { return window_bytes_; }
  // Says that there is no more; the status of the call.
  grpc::Status Finish() {
    call_->WritesDone();
    while (Read()) {
    }
    return call_->Finish();
  }
  void Cancel() { context_.TryCancel(); }

 private:
  std::unique_ptr<proto::Replay::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<proto::AppendRequest, proto::AppendReply>> call_;
  std::map<uint64_t, uint64_t> held_;
  int64_t window_bytes_ = 0;
};

// A learner's side of one Sample call; one thread.
class TestSampler final {
 public:
  explicit TestSampler(int port) : stub_(proto::Replay::NewStub(Connect(port))) {
    call_ = stub_->Sample(&context_);
  }

  bool Open(const std::string& run = "run", const std::string& table = "replay") {
    proto::SampleRequest request;
    request.mutable_open()->set_run(run);
    request.mutable_open()->set_table(table);
    return call_->Write(request);
  }
  bool Ask(const proto::SampleRequest& request) { return call_->Write(request); }
  bool Ask(uint32_t num_windows, uint32_t timeout_ms, uint64_t inserted_above = 0,
           uint64_t others_inserted = 0, uint64_t others_sampled = 0, uint32_t lacks_windows = 0) {
    proto::SampleRequest request;
    request.set_num_windows(num_windows);
    request.set_timeout_ms(timeout_ms);
    request.set_inserted_above(inserted_above);
    request.set_others_inserted(others_inserted);
    request.set_others_sampled(others_sampled);
    request.set_lacks_windows(lacks_windows);
    return call_->Write(request);
  }
  bool Read(proto::SampleReply* reply) { return call_->Read(reply); }
  grpc::Status Finish() {
    call_->WritesDone();
    proto::SampleReply reply;
    while (call_->Read(&reply)) {
    }
    return call_->Finish();
  }

 private:
  std::unique_ptr<proto::Replay::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<proto::SampleRequest, proto::SampleReply>> call_;
};

inline proto::DescribeReply Describe(int port) {
  grpc::ClientContext context;
  proto::DescribeReply reply;
  const grpc::Status status =
      proto::Replay::NewStub(Connect(port))->Describe(&context, proto::DescribeRequest(), &reply);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return reply;
}

inline Snapshot TestSnapshot(uint64_t version, const std::string& image,
                             const std::string& run = "run") {
  return {run, version, 0, Crc32c(0, image.data(), image.size()), image};
}

// Publishes in chunks of `chunk_bytes`.
inline grpc::Status Publish(int port, const Snapshot& snapshot, uint64_t* held_version = nullptr,
                            size_t chunk_bytes = 1 << 20) {
  grpc::ClientContext context;
  proto::PublishReply reply;
  auto stub = proto::Weights::NewStub(Connect(port));
  auto call = stub->Publish(&context, &reply);
  for (size_t offset = 0; offset == 0 || offset < snapshot.image.size(); offset += chunk_bytes) {
    proto::SnapshotChunk chunk;
    if (offset == 0) {
      chunk.mutable_header()->set_run(snapshot.run);
      chunk.mutable_header()->set_version(snapshot.version);
      chunk.mutable_header()->set_size_bytes(snapshot.image.size());
      chunk.mutable_header()->set_crc32c(snapshot.crc32c);
    }
    chunk.set_data(snapshot.image.substr(offset, chunk_bytes));
    if (!call->Write(chunk)) break;
  }
  call->WritesDone();
  const grpc::Status status = call->Finish();
  if (held_version != nullptr) *held_version = reply.version();
  return status;
}

// An actor's side of one Subscribe call; one thread.
class TestSubscriber final {
 public:
  explicit TestSubscriber(int port, uint64_t newer_than = 0, const std::string& run = "run")
      : stub_(proto::Weights::NewStub(Connect(port))) {
    proto::SubscribeRequest request;
    request.set_run(run);
    request.set_newer_than(newer_than);
    call_ = stub_->Subscribe(&context_, request);
  }
  ~TestSubscriber() { context_.TryCancel(); }

  // The next whole snapshot; version 0 if the call has ended.
  Snapshot Next() {
    proto::SnapshotChunk chunk;
    if (!call_->Read(&chunk)) return {};
    EXPECT_TRUE(chunk.has_header());
    Snapshot snapshot = {chunk.header().run(), chunk.header().version(), 0, chunk.header().crc32c(),
                         chunk.data()};
    const uint64_t size = chunk.header().size_bytes();
    while (snapshot.image.size() < size && call_->Read(&chunk)) {
      EXPECT_FALSE(chunk.has_header());
      snapshot.image += chunk.data();
    }
    EXPECT_EQ(Crc32c(0, snapshot.image.data(), snapshot.image.size()), snapshot.crc32c);
    return snapshot;
  }
  grpc::Status Finish() { return call_->Finish(); }

 private:
  std::unique_ptr<proto::Weights::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<proto::SnapshotChunk>> call_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_INTEGRATION_REPLAY_SERVER_SHARD_CLIENT_H_
