// Whole calls on a shard behind a port, with any bytes as messages: the first byte of the input
// names the method; then come messages, each after two bytes of its length.  Every call ends with a
// status that blames the caller, and the shard goes on.
//
// A shard lives for kCallsAShard inputs, so what one input finds may need those before it.
#include <deque>
#include <filesystem>
#include <memory>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/layout.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/client_callback.h"
#include "replay_server/server.h"
#include "spdlog/spdlog.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/requests.h"

namespace troupe {
namespace {

using Stub = grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>;

struct Method {
  const char* name;
  bool raw;    // gRPC hands the message over as bytes; it parses the others, and says INTERNAL
  bool waits;  // for what may never come: such a call is cancelled
};
constexpr Method kMethods[] = {{"/troupe.proto.Replay/Append", true, false},
                               {"/troupe.proto.Replay/Sample", true, true},
                               {"/troupe.proto.Replay/Describe", false, false},
                               {"/troupe.proto.Replay/UpdatePriorities", false, false},
                               {"/troupe.proto.Replay/Follow", true, true},
                               {"/troupe.proto.Replay/Backup", false, false},
                               {"/troupe.proto.Weights/Publish", false, false},
                               {"/troupe.proto.Weights/Subscribe", false, true}};
constexpr Method kDescribe = kMethods[2];
constexpr size_t kMaxMessages = 8;
constexpr int kCallsAShard = 512;
constexpr absl::Duration kPatience = absl::Milliseconds(2);  // with those that wait

// One call from the client's side; destroyed when done() is notified.
class FuzzedCall final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  FuzzedCall(Stub* stub, const Method& method, std::deque<grpc::ByteBuffer> messages)
      : messages_(std::move(messages)) {
    stub->PrepareBidiStreamingCall(&context_, method.name, {}, this);
    StartRead(&reply_);
    WriteNext();
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }
  absl::Notification& done() { return done_; }
  const grpc::Status& status() const { return status_; }

  void OnReadDone(bool ok) override {
    if (ok) StartRead(&reply_);
  }
  void OnWriteDone(bool ok) override {
    if (ok) WriteNext();
  }
  void OnDone(const grpc::Status& status) override {
    status_ = status;
    done_.Notify();
  }

 private:
  void WriteNext() {
    if (messages_.empty()) return StartWritesDone();
    message_ = std::move(messages_.front());
    messages_.pop_front();
    StartWrite(&message_);
  }

  grpc::ClientContext context_;
  std::deque<grpc::ByteBuffer> messages_;
  grpc::ByteBuffer message_, reply_;
  grpc::Status status_;
  absl::Notification done_;
};

grpc::Status Run(Stub* stub, const Method& method, std::deque<grpc::ByteBuffer> messages) {
  FuzzedCall call(stub, method, std::move(messages));
  if (method.waits && !call.done().WaitForNotificationWithTimeout(kPatience)) call.Cancel();
  call.done().WaitForNotification();
  return call.status();
}

// A shard with the tables of every selector, which belongs to the run of the seeds, and the way
// to it.
class Target final {
 public:
  Target() {
    spdlog::set_level(spdlog::level::off);
    options_.data_dir = OwnPath("shard");
    for (const SmallTable& table : kSmallTables) options_.tables.push_back(table.Options());
    options_.max_message_bytes = 1 << 16;
    options_.max_snapshot_bytes = 1 << 16;
    StartAnew();
  }

  Stub* stub() { return stub_.get(); }
  Shard& shard() { return server_->shard(); }

  // A shard that recovers what this one holds.
  void Restart() {
    const uint64_t version = shard().newest_version();
    Start();
    Require(shard().newest_version() == version, "a restart finds another snapshot");
  }
  void StartAnew() {
    server_ = nullptr;
    std::filesystem::remove_all(options_.data_dir);
    Start();
    Require(shard().ClaimRun(kRun).ok(), "a new shard has a run");
    for (const std::unique_ptr<Table>& table : shard().tables()) {
      Require(table->Open(kRun, OneColumnLayout()).ok(), "a table does not open");
    }
  }

 private:
  void Start() {
    server_ = nullptr;
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start("127.0.0.1:0", options_);
    Require(server.ok(), server.status());
    server_ = *std::move(server);
    stub_ = std::make_unique<Stub>(grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                                       grpc::InsecureChannelCredentials()));
  }

  ShardOptions options_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Stub> stub_;
};

std::deque<grpc::ByteBuffer> Messages(absl::string_view input) {
  std::deque<grpc::ByteBuffer> messages;
  while (input.size() >= 2 && messages.size() < kMaxMessages) {
    messages.push_back(InPieces(TakeMessage(&input)));
  }
  return messages;
}

void CheckAnswers(Target* target) {
  FuzzedCall describe(target->stub(), kDescribe, {InPieces("")});
  describe.done().WaitForNotification();
  Require(describe.status().ok(), "the shard does not answer: ", describe.status().error_message());
}

void TestOne(absl::string_view input) {
  if (input.empty()) return;
  static Target* const target = new Target;
  const Method& method = kMethods[static_cast<uint8_t>(input[0]) % std::size(kMethods)];
  const grpc::Status status = Run(target->stub(), method, Messages(input.substr(1)));
  const bool blames_us = status.error_code() == grpc::StatusCode::UNKNOWN ||
                         status.error_code() == grpc::StatusCode::DATA_LOSS ||
                         (method.raw && status.error_code() == grpc::StatusCode::INTERNAL);
  Require(!blames_us, method.name, ": ", status.error_message());
  Require(target->shard().CheckServing().ok(), "the shard serves no more");
  static int calls = 0;
  if (++calls % 64 == 0) CheckAnswers(target);
  if (calls % kCallsAShard == 0) target->StartAnew();
  if (calls % kCallsAShard == kCallsAShard / 2) target->Restart();
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
