#include "tests/unit/client/fake_shard.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/layout.h"
#include "grpcpp/server_builder.h"

namespace troupe::testing {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(1);
// How often a held back call looks whether its client is gone.
constexpr absl::Duration kCancelCheck = absl::Milliseconds(5);

using AppendStream = grpc::ServerReaderWriter<proto::AppendReply, proto::AppendRequest>;
using SampleStream = grpc::ServerReaderWriter<proto::SampleReply, proto::SampleRequest>;

// Waits until `condition`, under `mu`.  False: the call was cancelled, or `deadline` passed.
template <typename Condition>
bool HoldBack(FakeShardState& state, grpc::ServerContext* context, const Condition& condition,
              absl::Time deadline = absl::InfiniteFuture()) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  absl::Condition ready(&condition);
  while (!state.mu.AwaitWithTimeout(ready, kCancelCheck)) {
    if (context->IsCancelled() || absl::Now() >= deadline) return false;
  }
  return true;
}

}  // namespace

bool FakeShardState::Await(const std::function<bool(const FakeShardState&)>& condition) const {
  absl::MutexLock lock(&mu);
  const auto ready = [&] { return condition(*this); };
  return mu.AwaitWithTimeout(absl::Condition(&ready), kPatience);
}

void FakeShardState::Set(const std::function<void(FakeShardState&)>& change) {
  absl::MutexLock lock(&mu);
  change(*this);
}

int64_t FakeShardState::Rows() const {
  int64_t bytes = 0;
  for (const auto& [id, rows] : streams) bytes += rows.size();
  return stride_bytes == 0 ? 0 : bytes / stride_bytes;
}

class FakeShard::ReplayService final : public proto::Replay::Service {
 public:
  explicit ReplayService(FakeShardState* state) : state_(*state) {}

  grpc::Status Append(grpc::ServerContext* context, AppendStream* stream) override {
    proto::AppendRequest request;
    if (!stream->Read(&request)) return grpc::Status::OK;
    {
      absl::MutexLock lock(&state_.mu);
      if (grpc::Status status = Open(request.open(), stream); !status.ok()) return status;
      if (!AwaitAdmission(context, stream)) return grpc::Status::CANCELLED;
    }
    proto::AppendReply reply;
    for (int64_t n = 1; stream->Read(&request); ++n) {
      absl::MutexLock lock(&state_.mu);
      if (!AwaitStoring(context)) return grpc::Status::CANCELLED;
      if (grpc::Status status = Store(request); !status.ok()) return status;
      for (const proto::RowRun& run : request.runs()) AddAck(run.stream(), &reply);
      reply.set_held_back(!AdmitsWriters());
      if (state_.acks && n % state_.ack_one_in == 0) stream->Write(std::exchange(reply, {}));
      if (!AwaitAdmission(context, stream)) return grpc::Status::CANCELLED;
    }
    return grpc::Status::OK;
  }

  grpc::Status Sample(grpc::ServerContext* context, SampleStream* stream) override {
    proto::SampleRequest request;
    if (!stream->Read(&request)) return grpc::Status::OK;
    {
      absl::MutexLock lock(&state_.mu);
      if (!state_.refuse.ok()) return state_.refuse;
    }
    while (stream->Read(&request)) {
      proto::SampleReply reply;
      {
        absl::MutexLock lock(&state_.mu);
        const bool in_time = Admit(context, request);
        if (context->IsCancelled()) return grpc::Status::CANCELLED;
        if (in_time && request.num_windows() > 0) Draw(request.num_windows(), &reply);
        reply.set_mass(state_.mass);
        reply.mutable_counts()->set_env_steps(state_.inserted);
        reply.mutable_counts()->set_inserted(state_.inserted);
        reply.mutable_counts()->set_sampled(state_.sampled);
        reply.mutable_counts()->set_preloaded(state_.preloaded);
      }
      stream->Write(reply);
    }
    return grpc::Status::OK;
  }

  grpc::Status Describe(grpc::ServerContext* context, const proto::DescribeRequest* request,
                        proto::DescribeReply* reply) override {
    absl::MutexLock lock(&state_.mu);
    if (!state_.refuse.ok()) return state_.refuse;
    reply->set_max_epoch(state_.max_epoch);
    proto::TableDescription* table = reply->add_tables();
    table->set_name("replay");
    table->set_window_length(2);
    table->set_window_stride(1);
    if (state_.layout.columns_size() > 0) *table->mutable_layout() = state_.layout;
    return grpc::Status::OK;
  }

 private:
  grpc::Status Open(const proto::AppendOpen& open, AppendStream* stream)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_.mu) {
    if (!state_.refuse.ok()) return state_.refuse;
    ++state_.append_opens;
    state_.stride_bytes = Layout::FromProto(open.layout())->stride_bytes();
    proto::AppendReply reply;
    reply.set_window_bytes(state_.window_bytes);
    reply.set_held_back(!AdmitsWriters());
    for (const uint64_t id : open.streams()) AddAck(id, &reply);
    stream->Write(reply);
    return grpc::Status::OK;
  }

  bool AdmitsWriters() const ABSL_SHARED_LOCKS_REQUIRED(state_.mu) {
    return state_.Rows() < state_.admits_rows;
  }

  // Holds the writer back, who was told so, until it is admitted, and tells it that.  False: the
  // call was cancelled meanwhile.
  bool AwaitAdmission(grpc::ServerContext* context, AppendStream* stream)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_.mu) {
    if (AdmitsWriters()) return true;
    const auto admitted = [this] {
      state_.mu.AssertReaderHeld();
      return AdmitsWriters();
    };
    return HoldBack(state_, context, admitted) && stream->Write(proto::AppendReply());
  }

  bool AwaitStoring(grpc::ServerContext* context) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_.mu) {
    const auto stores = [this] {
      state_.mu.AssertReaderHeld();
      return state_.Rows() < state_.stores_rows;
    };
    return HoldBack(state_, context, stores);
  }

  void AddAck(uint64_t id, proto::AppendReply* reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_.mu) {
    proto::StreamAck* ack = reply->add_acks();
    ack->set_stream(id);
    ack->set_held_rows(state_.streams[id].size() / state_.stride_bytes + state_.overclaim_rows);
  }

  grpc::Status Store(const proto::AppendRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_.mu) {
    int64_t bytes = 0;
    for (const proto::RowRun& run : request.runs()) {
      std::string& rows = state_.streams[run.stream()];
      const size_t begin = run.first_row() * state_.stride_bytes;
      if (begin > rows.size()) {
        return {grpc::StatusCode::FAILED_PRECONDITION, "a gap in a stream"};
      }
      const size_t known = std::min(rows.size() - begin, run.rows().size());
      state_.duplicate_rows += known / state_.stride_bytes;
      rows.append(run.rows(), known, std::string::npos);
      bytes += run.rows().size();
    }
    ++state_.messages;
    state_.largest_message_bytes = std::max(state_.largest_message_bytes, bytes);
    return grpc::Status::OK;
  }

  bool Admit(grpc::ServerContext* context, const proto::SampleRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_.mu) {
    const auto answers = [this] {
      state_.mu.AssertReaderHeld();
      return !state_.silent;
    };
    if (!HoldBack(state_, context, answers)) return false;
    state_.requests.push_back(request);
    state_.sampled = std::max<uint64_t>(state_.sampled, request.sampled_at_least());
    for (int i = 0; i < request.priorities().row_ids_size(); ++i) {
      state_.priorities[request.priorities().row_ids(i)] = request.priorities().priorities(i);
    }
    const bool poll = request.num_windows() == 0;
    if (poll) ++state_.polls;
    const auto ready = [&] {
      state_.mu.AssertReaderHeld();
      return poll ? state_.inserted > request.inserted_above() : state_.answers && state_.mass > 0;
    };
    return HoldBack(state_, context, ready, absl::Now() + absl::Milliseconds(request.timeout_ms()));
  }

  // Windows of two rows of 24 bytes, all bytes of a window equal to the low byte of its id.
  void Draw(int64_t n, proto::SampleReply* reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_.mu) {
    if (state_.num_short > 0) {
      --state_.num_short;
      n = std::max<int64_t>(0, n - state_.short_by);
    }
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t id = state_.sampled++;
      reply->add_row_ids(id);
      const double weight = state_.weights[id % state_.weights.size()];
      reply->add_probabilities(static_cast<float>(weight / state_.mass));
      reply->mutable_windows()->append(48, static_cast<char>(id));
    }
    if (state_.wrong_size > 0) {
      --state_.wrong_size;
      reply->mutable_windows()->push_back('x');
    }
  }

  FakeShardState& state_;
};

class FakeShard::WeightsService final : public proto::Weights::Service {
 public:
  explicit WeightsService(FakeShardState* state) : state_(*state) {}

  grpc::Status Publish(grpc::ServerContext* context,
                       grpc::ServerReader<proto::SnapshotChunk>* reader,
                       proto::PublishReply* reply) override {
    proto::SnapshotChunk chunk;
    proto::SnapshotHeader header;
    std::string image;
    while (reader->Read(&chunk)) {
      if (chunk.has_header()) header = chunk.header();
      image += chunk.data();
    }
    absl::MutexLock lock(&state_.mu);
    if (!state_.refuse.ok()) return state_.refuse;
    const auto takes = [this] {
      state_.mu.AssertReaderHeld();
      return state_.takes_snapshots;
    };
    if (!HoldBack(state_, context, takes)) return grpc::Status::CANCELLED;
    if (image.size() != header.size_bytes()) {
      return {grpc::StatusCode::INVALID_ARGUMENT, "size does not match"};
    }
    state_.published.push_back(header.version());
    state_.header = header;
    state_.image = image;
    reply->set_version(header.version());
    return grpc::Status::OK;
  }

  grpc::Status Subscribe(grpc::ServerContext* context, const proto::SubscribeRequest* request,
                         grpc::ServerWriter<proto::SnapshotChunk>* writer) override {
    uint64_t sent = request->newer_than();
    absl::MutexLock lock(&state_.mu);
    if (!state_.refuse.ok()) return state_.refuse;
    ++state_.subscribers;
    const auto newer = [&] {
      state_.mu.AssertReaderHeld();
      return state_.header.version() > sent;
    };
    while (HoldBack(state_, context, newer)) {
      sent = state_.header.version();
      proto::SnapshotChunk chunk;
      *chunk.mutable_header() = state_.header;
      for (size_t begin = 0; begin < state_.image.size(); begin += 1000) {
        chunk.set_data(state_.image.substr(begin, 1000));
        writer->Write(chunk);
        chunk.clear_header();
      }
    }
    --state_.subscribers;
    return grpc::Status::OK;
  }

 private:
  FakeShardState& state_;
};

FakeShard::FakeShard() { Listen("127.0.0.1:0"); }

FakeShard::~FakeShard() { Kill(); }

void FakeShard::Listen(const std::string& address) {
  replay_ = std::make_unique<ReplayService>(&state_);
  weights_ = std::make_unique<WeightsService>(&state_);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(replay_.get());
  builder.RegisterService(weights_.get());
  server_ = builder.BuildAndStart();
  target_ = absl::StrCat("127.0.0.1:", port);
}

void FakeShard::Kill() {
  if (server_ == nullptr) return;
  server_->Shutdown(absl::ToChronoTime(absl::Now()));
  server_.reset();
}

void FakeShard::Restart() { Listen(target_); }

}  // namespace troupe::testing
