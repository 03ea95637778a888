#include "tests/chaos/shard_kill/kill_loop.h"

#include <algorithm>
#include <filesystem>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace troupe {
namespace {

// Of the kills that are not chosen by acked rows.
constexpr double kLongestWriting = 0.08;   // seconds
constexpr double kLongestOpening = 0.002;  // seconds; the first calls take as long
constexpr uint64_t kLeastRowsPerKill = 20'000;

std::unique_ptr<proto::Replay::Stub> Connect(int port) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  return proto::Replay::NewStub(grpc::CreateCustomChannel(
      absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials(), arguments));
}

}  // namespace

absl::StatusOr<std::unique_ptr<KillLoop>> KillLoop::Make(const KillLoopOptions& options,
                                                         Findings* findings) {
  absl::StatusOr<std::unique_ptr<Ledger>> ledger = Ledger::Create(options.dir + "/ledger");
  if (!ledger.ok()) return ledger.status();
  return std::unique_ptr<KillLoop>(new KillLoop(options, findings, *std::move(ledger)));
}

KillLoop::KillLoop(const KillLoopOptions& options, Findings* findings,
                   std::unique_ptr<Ledger> ledger)
    : options_(options),
      ledger_path_(options.dir + "/ledger"),
      rows_(options.seed),
      findings_(findings),
      ledger_(std::move(ledger)),
      pace_(options.threads, options.capacity_rows / 2 / options.threads),
      random_(options.seed) {
  const WriterContext context = {&rows_, ledger_.get(), findings, &pace_};
  for (int i = 0; i < options.threads; ++i) {
    writers_.push_back(std::make_unique<Writer>(i, random_(), context));
  }
}

absl::Status KillLoop::Run() {
  while (report_.kills < options_.kills || ledger_->acked_rows() < options_.min_rows) {
    if (absl::Status status = Live(); !status.ok()) return status;
    report_.kills++;
    if (report_.kills % options_.check_every == 0) {
      if (absl::Status status = CheckLogFile(); !status.ok()) return status;
      ShowProgress();
    }
    if (findings_->any()) return absl::OkStatus();
  }
  return CheckLogFile();
}

KillLoopReport KillLoop::report() const {
  KillLoopReport report = report_;
  report.acked_rows = ledger_->acked_rows();
  report.streams = Facts().size();
  return report;
}

std::map<uint64_t, StreamFacts> KillLoop::Facts() const {
  std::map<uint64_t, StreamFacts> facts;
  for (const auto& writer : writers_) facts.merge(writer->Facts());
  return facts;
}

KillLoop::KillPlan KillLoop::DrawPlan() {
  const double share = DrawReal(0, 1);
  const double usual_start =
      report_.recovery_seconds.empty() ? 0.1 : report_.recovery_seconds.back();
  if (share < 0.1) return {KillPlan::kStarting, absl::Seconds(DrawReal(0, usual_start)), 0};
  if (share < 0.2) return {KillPlan::kOpening, absl::Seconds(DrawReal(0, kLongestOpening)), 0};
  if (share < 0.4) return {KillPlan::kWriting, absl::Seconds(DrawReal(0, kLongestWriting)), 0};
  // The rest brings the rows: what they lack from now on, spread over the kills that are left.
  const uint64_t acked = ledger_->acked_rows();
  const uint64_t kills_left = std::max<uint64_t>(options_.kills, report_.kills + 1) - report_.kills;
  const uint64_t rows_left = std::max(options_.min_rows, acked) - acked;
  const uint64_t mean = std::max(kLeastRowsPerKill, rows_left / kills_left);
  return {KillPlan::kWriting, absl::InfiniteDuration(),
          1 + static_cast<uint64_t>(DrawReal(0, 3.5) * static_cast<double>(mean))};
}

absl::Status KillLoop::Live() {
  {
    ServerLife server({.program = options_.program,
                       .data_dir = options_.dir + "/data",
                       .capacity_rows = options_.capacity_rows,
                       .log_file = options_.dir + "/server.log"});
    UseServer(DrawPlan(), &server);
    if (server.timed_out()) {
      findings_->Other(absl::StrCat("life ", report_.kills + 1, " of the server came to no end in ",
                                    absl::FormatDuration(ServerLife::kLongestLife)));
    }
  }
  return ledger_->Flush();
}

void KillLoop::UseServer(const KillPlan& plan, ServerLife* server) {
  if (plan.phase == KillPlan::kStarting) server->KillAt(server->started() + plan.after);
  const int port = server->AwaitPort();
  if (plan.phase == KillPlan::kOpening) server->KillAt(absl::Now() + plan.after);
  if (port == 0) {
    report_.kills_while_starting++;
    if (!server->killed()) {
      findings_->Other(
          absl::StrCat("the server ended by itself: see ", options_.dir, "/server.log"));
    }
    return;
  }
  const std::unique_ptr<proto::Replay::Stub> stub = Connect(port);
  if (!TakeStock(stub.get(), *server)) {
    report_.kills_while_opening++;
    return;
  }
  report_.recovery_seconds.push_back(absl::ToDoubleSeconds(absl::Now() - server->started()));
  if (!findings_->any()) Write(port, plan, server);
}

grpc::Status KillLoop::AskHeld(proto::Replay::Stub* stub, std::map<uint64_t, uint64_t>* held) {
  std::vector<uint64_t> streams;
  for (const auto& [stream, facts] : Facts()) streams.push_back(stream);
  grpc::ClientContext context;
  auto call = stub->Append(&context);
  call->Write(OpenRequest(streams));
  call->WritesDone();
  proto::AppendReply reply;
  while (call->Read(&reply)) {
    for (const proto::StreamAck& ack : reply.acks()) (*held)[ack.stream()] = ack.held_rows();
  }
  return call->Finish();
}

bool KillLoop::TakeStock(proto::Replay::Stub* stub, const ServerLife& server) {
  std::map<uint64_t, uint64_t> held;
  grpc::Status status = AskHeld(stub, &held);
  proto::DescribeReply description;
  if (status.ok()) {
    grpc::ClientContext context;
    status = stub->Describe(&context, proto::DescribeRequest(), &description);
  }
  if (!status.ok()) {
    if (!server.killed()) findings_->Other("the server refuses: " + status.error_message());
    return false;
  }
  CheckHeld(held, description.tables(0));
  for (const auto& writer : writers_) writer->Begin(held);  // finds acked rows that are lost
  return true;
}

void KillLoop::CheckHeld(const std::map<uint64_t, uint64_t>& held,
                         const proto::TableDescription& table) {
  uint64_t rows_ever = 0;
  for (const auto& [stream, facts] : Facts()) {
    const auto found = held.find(stream);
    const uint64_t rows = found == held.end() ? 0 : found->second;
    rows_ever += facts.active ? rows : facts.acked_rows;
    // 0: all of it was evicted long ago.
    if (facts.active || rows == 0 || rows == facts.acked_rows) continue;
    findings_->Lost(1, absl::StrCat(StreamName(stream), ": ended with ", facts.acked_rows,
                                    " rows, now ", rows));
  }
  const uint64_t appended = table.rows_appended();
  const std::string words =
      absl::StrCat("rows_appended is ", appended, ", the streams have ", rows_ever, " rows");
  if (appended > rows_ever) findings_->Doubled(appended - rows_ever, words);
  if (appended < rows_ever) findings_->Lost(rows_ever - appended, words);
  if (table.corrupt_blocks() > 0) {
    findings_->Corrupt(
        table.corrupt_blocks(),
        absl::StrCat("recovery: ", table.recovery_losses_size() > 0 ? table.recovery_losses(0)
                                                                    : "corrupt blocks"));
  }
}

void KillLoop::Write(int port, const KillPlan& plan, ServerLife* server) {
  std::atomic<uint64_t> acked{0};  // plain sum; the crossing of the plan's number kills once
  const auto count_acked = [&](uint64_t rows) {
    const uint64_t before = acked.fetch_add(rows);
    if (plan.acked_rows > 0 && before + rows >= plan.acked_rows) server->KillNow();
  };
  pace_.Begin();
  std::vector<std::thread> threads;
  for (const auto& writer : writers_) {
    threads.emplace_back([&, writer = writer.get()] {
      const std::unique_ptr<proto::Replay::Stub> stub = Connect(port);
      const grpc::Status status = writer->Run(stub.get(), count_acked);
      if (server->killed()) return;
      findings_->Other("an Append call ended by itself: " + status.error_message());
      server->KillNow();
    });
  }
  if (plan.acked_rows == 0 && plan.phase == KillPlan::kWriting) {
    server->KillAt(absl::Now() + plan.after);
  }
  for (std::thread& thread : threads) thread.join();
}

absl::Status KillLoop::CheckLogFile() {
  const std::string path = options_.dir + "/data/replay.rows";
  if (!std::filesystem::exists(path) && ledger_->acked_rows() == 0) return absl::OkStatus();
  report_.log_checks++;
  return CheckLog(path, ledger_path_, Facts(), rows_, findings_);
}

void KillLoop::ShowProgress() const {
  std::cerr << "kills " << report_.kills << ", acked rows " << ledger_->acked_rows()
            << ", log read " << report_.log_checks << " times" << std::endl;
}

}  // namespace troupe
