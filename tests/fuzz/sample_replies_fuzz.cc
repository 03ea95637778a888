// What a shard may answer to a learner: messages, each after two bytes of its length, the first for
// Describe, the others for Sample in the order in which they are asked for.  The client hands out
// whole batches of what was answered, or says why not.
#include <cmath>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/replay_client.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "proto/replay.pb.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

constexpr int64_t kBatch = 4;
constexpr int kMaxBatches = 4;

// The answers that are left.  Thread-safe.
class Script final {
 public:
  void Set(absl::string_view describe, absl::string_view rest) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    describe_ = std::string(describe);
    rest_ = std::string(rest);
  }
  // False: there is none.
  bool Take(bool describe, grpc::ByteBuffer* answer) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    absl::string_view rest = rest_;
    if (!describe && rest.size() < 2) return false;
    const absl::string_view message = describe ? describe_ : TakeMessage(&rest);
    const grpc::Slice slice(message.data(), message.size());
    *answer = grpc::ByteBuffer(&slice, 1);
    if (!describe) rest_ = std::string(rest);
    return true;
  }

 private:
  absl::Mutex mu_;
  std::string describe_ ABSL_GUARDED_BY(mu_);
  std::string rest_ ABSL_GUARDED_BY(mu_);
};

// One call from the shard's side: an answer to each message, until there is none.
class ScriptedCall final : public grpc::ServerGenericBidiReactor {
 public:
  ScriptedCall(Script* script, bool describe) : script_(script), describe_(describe) {
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    if (!describe_ && !std::exchange(opened_, true)) return StartRead(&request_);
    if (!script_->Take(describe_, &answer_)) {
      return Finish({grpc::StatusCode::NOT_FOUND, "there are no more answers"});
    }
    if (describe_) return StartWriteAndFinish(&answer_, {}, grpc::Status::OK);
    StartWrite(&answer_);
  }
  void OnWriteDone(bool ok) override {
    if (!describe_) StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  Script* const script_;
  const bool describe_;
  bool opened_ = false;
  grpc::ByteBuffer request_, answer_;
};

class ScriptedShard final : public grpc::CallbackGenericService {
 public:
  ScriptedShard() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterCallbackGenericService(this);
    server_ = builder.BuildAndStart();
    Require(server_ != nullptr && port != 0, "no port");
    address_ = absl::StrCat("127.0.0.1:", port);
  }

  const std::string& address() const { return address_; }
  Script& script() { return script_; }

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    return new ScriptedCall(&script_, context->method() == "/troupe.proto.Replay/Describe");
  }

 private:
  Script script_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

// A description that the client goes on with, unless it is one that it refuses: it asks again for
// one that it cannot read, some time later.
std::string Description(absl::string_view message) {
  proto::DescribeReply reply;
  if (!reply.ParseFromArray(message.data(), static_cast<int>(message.size()))) reply.Clear();
  if (reply.tables().empty()) reply.add_tables()->set_name("replay");
  proto::TableDescription* table = reply.mutable_tables(0);
  if (!table->has_layout()) {
    proto::Column* column = table->mutable_layout()->add_columns();
    column->set_name("observation");
    column->set_dtype(proto::FLOAT64);
    table->set_window_length(2);
  }
  return reply.SerializeAsString();
}

void CheckBatch(const WindowBatch& batch) {
  Require(batch.num_windows == kBatch, "another number of windows");
  for (int64_t i = 0; i < kBatch; ++i) {
    const float probability = batch.buffer->probabilities[i];
    Require(probability >= 0 && std::isfinite(probability), "a probability of ", probability);
    Require(batch.buffer->shards[i] == 0, "a window of another shard");
  }
  // AddressSanitizer has something to say if not all of it is there.
  std::string copy(reinterpret_cast<const char*>(batch.data()), kBatch * batch.window_bytes());
}

void TestOne(absl::string_view input) {
  static ScriptedShard* const shard = new ScriptedShard;
  if (input.size() < 2) return;
  const absl::string_view first = TakeMessage(&input);
  shard->script().Set(Description(first), input);
  ReplayClientOptions options;
  options.shards = {shard->address()};
  options.run = "run";
  options.table = "replay";
  options.batch_size = kBatch;
  options.prefetch_batches = 2;
  options.reconnect_min = options.reconnect_max = absl::Microseconds(10);
  auto client = ReplayClient::Create(options);
  Require(client.ok(), client.status());
  const absl::Time soon = absl::Now() + absl::Seconds(10);
  if (!(*client)->WaitForTable(soon).ok()) return;
  for (int i = 0; i < kMaxBatches; ++i) {
    const absl::StatusOr<WindowBatch> batch = (*client)->NextBatch(soon);
    if (!batch.ok()) return Require(!absl::IsDeadlineExceeded(batch.status()), batch.status());
    CheckBatch(*batch);
  }
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
