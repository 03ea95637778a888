// A table and a plain model of it are put through the same random operations, and must agree after
// each one.  RC_PARAMS="max_success=100000" looks longer; a failure prints the shortest sequence
// found and the RC_PARAMS that bring it back.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "replay_server/table.h"
#include "tests/unit/replay_server/rows.h"
#include "tests/unit/table_model/operations.h"
#include "tests/unit/table_model/reference_table.h"

namespace troupe {
namespace {

constexpr uint64_t kStreams = 4;
// The chance that a window is never among so many draws for each window there is: e^-50.
constexpr uint64_t kDrawsForAll = 50;

// The rows of one run, told from those of other runs by `message`.
std::string MakeRows(const Run& run, uint64_t first, uint64_t message) {
  const std::set<uint64_t> finals(run.finals.begin(), run.finals.end());
  std::string bytes;
  for (uint64_t i = 0; i < run.count; ++i) {
    const uint32_t flag = i % 2 == 0 ? kTerminated : kTruncated;
    const RowHeader header = {message, finals.contains(i) ? flag : 0,
                              i % 3 == 0 ? run.own_priority : 0};
    const TestRow row = {header, run.stream, first + i};
    bytes.append(reinterpret_cast<const char*>(&row), sizeof(row));
  }
  return bytes + std::string(run.bytes_too_many, 'x');
}

uint64_t FirstRow(const Run& run, uint64_t next) {
  constexpr uint64_t kLimit = uint64_t{1} << 56;
  switch (run.place) {
    case Run::kNext:
      return next;
    case Run::kResent:
      return next - std::min(next, run.distance);
    case Run::kGap:
      return next + run.distance;
    case Run::kNearTheLimit:
      return kLimit - run.distance;
    case Run::kBeyondTheLimit:
      return ~uint64_t{0} - run.distance;
  }
  return next;
}

// A table, its model, and the calls that wait.
class Comparison final {
 public:
  Comparison(const TableOptions& options, const std::string& path)
      : options_(options), model_(options) {
    options_.path = path;
    MakeTable();
  }

  void Do(const Operation& operation) {
    std::visit([this](const auto& what) { Do(what); }, operation);
    CheckWakes();
    CheckSame();
  }

 private:
  struct Waiting {
    WaiterPtr waiter;
    std::shared_ptr<std::atomic<int>> wakes;  // atomic: counted on the scheduler's thread
    std::optional<SampleQuery> query;         // none: a writer
  };

  void MakeTable() {
    table_ = nullptr;
    absl::StatusOr<std::unique_ptr<Table>> table = Table::Make(options_, &scheduler_);
    if (!table.ok()) RC_FAIL(table.status().ToString());
    table_ = *std::move(table);
  }

  void Do(const AppendRuns& append) {
    is_open_ = true;
    RC_ASSERT(table_->Open("run", TestLayout()).ok());
    message_++;
    std::map<uint64_t, uint64_t> next;
    for (uint64_t stream = 0; stream < kStreams; ++stream) next[stream] = model_.Held(stream);
    std::vector<std::string> bytes;
    std::vector<RowRunView> runs;
    for (const Run& run : append.runs) {
      const uint64_t first = FirstRow(run, next[run.stream]);
      bytes.push_back(MakeRows(run, first, message_));
      runs.push_back({run.stream, first, ""});
      next[run.stream] = std::max(next[run.stream], first + run.count);
    }
    for (size_t i = 0; i < runs.size(); ++i) runs[i].rows = bytes[i];
    const auto acks = table_->Append(runs, 0, append.preload);
    RC_ASSERT(acks.status().code() == model_.Append(runs, append.preload));
    if (!acks.ok()) return;
    for (const proto::StreamAck& ack : *acks) {
      RC_ASSERT(ack.held_rows() == model_.Held(ack.stream()));
    }
  }

  void Do(const Draw& draw) {
    if (!Ask({draw.num_windows, 0}) && !draw.stays) GiveUpNewest();
  }

  void Do(const Poll& poll) { Ask({0, poll.more_than}); }

  // REQUIRES: what is asked fits, or the call is to wait.
  bool Ask(const SampleQuery& query) {
    Waiting call = MakeCall(query);
    SampleBatch batch;
    const bool admitted = table_->SampleOrWait(query, call.waiter, &batch);
    RC_ASSERT(admitted == (is_open_ && model_.Admits(query)));
    if (!admitted) {
      AddWaiting(std::move(call));
      return false;
    }
    std::string windows(batch.windows.size_bytes(), 0);
    batch.windows.MoveTo(reinterpret_cast<uint8_t*>(windows.data()));
    RC_ASSERT(batch.row_ids.size() == query.num_windows);
    RC_ASSERT(windows.size() == query.num_windows * options_.window.length * kTestStride);
    if (query.num_windows > 0) {
      RC_ASSERT(model_.NoteDrawn(batch.row_ids, batch.probabilities, windows) == "");
    }
    CheckCounts(batch);
    return true;
  }

  // What can be drawn is all that the model says, and nothing else.
  void Do(const DrawAll&) {
    if (!is_open_) return;
    NoteOthers opened = {uint64_t{1} << 40, 0, 0};  // the limiter lets everything through
    Do(opened);
    CheckWakes();
    if (model_.UsesPriorities()) SetAllPriorities();
    CheckWakes();
    std::set<uint64_t> left;
    for (const auto& window : model_.windows()) left.insert(model_.RowId(window));
    while (!left.empty()) {
      const uint64_t n = std::min<uint64_t>(model_.Available(), kDrawsForAll * left.size());
      SampleBatch batch;
      Waiting call = MakeCall(SampleQuery{n, 0});
      RC_ASSERT(table_->SampleOrWait({n, 0}, call.waiter, &batch));
      batch.windows.Unpin();
      RC_ASSERT(model_.NoteDrawn(batch.row_ids, batch.probabilities, "") == "");
      for (const uint64_t id : batch.row_ids) left.erase(id);
    }
    Do(NoteOthers());
  }

  // Tells every window's id from those of other rows.
  void SetAllPriorities() {
    const std::vector<uint64_t> ids = model_.RowIds();
    CheckUpdate(ids, std::vector<float>(ids.size(), 1));
    RC_ASSERT(model_.windows().size() == last_outcome_.updated);
  }

  void Do(const AskToWrite& ask) {
    if (!is_open_) return;
    Waiting call = MakeCall(std::nullopt);
    // By the limiter; the writer may still have to wait for its turn.
    const bool is_held_back = table_->AdmitWriterOrWait(call.waiter) == Admission::kHeldBack;
    RC_ASSERT(is_held_back == !model_.WritersMayWrite());
    if (!is_held_back) return table_->Forget(call.waiter);
    AddWaiting(std::move(call));
    if (!ask.stays) GiveUpNewest();
  }

  void Do(const GiveUp& give_up) {
    if (waiting_.empty()) return;
    std::swap(waiting_[give_up.which % waiting_.size()], waiting_.back());
    GiveUpNewest();
  }

  void Do(const SetPriorities& set) {
    const std::vector<uint64_t> held = model_.RowIds();
    std::vector<uint64_t> ids;
    std::vector<float> priorities;
    for (const NewPriority& change : set.changes) {
      const bool is_absurd = change.is_absurd || held.empty();
      // Ids of blocks long gone, of some to come, and of none.
      const uint64_t absurd = change.which % 3 == 0 ? ~change.which : change.which * 7;
      ids.push_back(is_absurd ? absurd : held[change.which % held.size()]);
      priorities.push_back(change.priority);
    }
    if (set.of_all_rows && !priorities.empty()) {
      ids = held;
      priorities.assign(ids.size(), priorities[0]);
    }
    if (set.one_missing && !priorities.empty()) priorities.pop_back();
    CheckUpdate(ids, priorities);
  }

  void CheckUpdate(const std::vector<uint64_t>& ids, const std::vector<float>& priorities) {
    proto::PriorityUpdates updates;
    updates.mutable_row_ids()->Add(ids.begin(), ids.end());
    updates.mutable_priorities()->Add(priorities.begin(), priorities.end());
    const absl::StatusOr<PriorityOutcome> outcome = table_->UpdatePriorities(updates);
    const std::optional<PriorityOutcome> expected = model_.UpdatePriorities(ids, priorities);
    RC_ASSERT(outcome.ok() == expected.has_value());
    if (!outcome.ok()) {
      RC_ASSERT(outcome.status().code() == absl::StatusCode::kInvalidArgument);
      return;
    }
    RC_ASSERT(outcome->updated == expected->updated);
    RC_ASSERT(outcome->unknown == expected->unknown);
    last_outcome_ = *outcome;
  }

  void Do(const NoteOthers& others) {
    table_->NoteOthers(others.inserted, others.preloaded, others.sampled);
    model_.NoteOthers(others.inserted, others.preloaded, others.sampled);
  }

  void Do(const Restart&) {
    waiting_.clear();
    MakeTable();
    model_.Restart();
    if (is_open_) RC_ASSERT(table_->Describe().corrupt_blocks() == 0u);
  }

  // --- Calls that wait. ---

  Waiting MakeCall(const std::optional<SampleQuery>& query) {
    auto wakes = std::make_shared<std::atomic<int>>(0);
    auto waiter = std::make_shared<Waiter>(Waiter{.wake = [wakes] { ++*wakes; }});
    return {std::move(waiter), std::move(wakes), query};
  }

  void AddWaiting(Waiting call) {
    waiting_.push_back(std::move(call));
    TellModelOfWaiting();
    CheckWakes();
  }

  void GiveUpNewest() {
    table_->Forget(waiting_.back().waiter);
    waiting_.pop_back();
    TellModelOfWaiting();
  }

  void TellModelOfWaiting() {
    std::vector<uint64_t> samplers;
    for (const Waiting& call : waiting_) {
      if (call.query.has_value()) samplers.push_back(call.query->num_windows);
    }
    model_.set_waiting_samplers(samplers);
  }

  // Who may go on was woken once, and nobody else was.
  void CheckWakes() {
    if (waiting_.empty()) return;
    absl::Notification all_ran;
    scheduler_.Post([&] { all_ran.Notify(); });
    all_ran.WaitForNotification();
    std::vector<Waiting> still;
    for (const Waiting& call : waiting_) {
      const bool may_go_on = call.query.has_value() ? is_open_ && model_.Admits(*call.query)
                                                    : model_.WritersMayWrite();
      RC_ASSERT(call.wakes->load() == (may_go_on ? 1 : 0));
      if (!may_go_on) still.push_back(call);
    }
    waiting_ = std::move(still);
    TellModelOfWaiting();
  }

  // --- What can be seen at any time. ---

  void CheckMass(double mass) const {
    RC_ASSERT(std::abs(mass - model_.Mass()) <= 1e-5 * model_.Mass());
  }

  void CheckCounts(const SampleBatch& batch) const {
    const LogCounts& expected = model_.counts();
    RC_ASSERT(batch.num_windows == model_.windows().size());
    RC_ASSERT(batch.counts.env_steps == expected.env_steps);
    RC_ASSERT(batch.counts.inserted == expected.inserted);
    RC_ASSERT(batch.counts.preloaded == expected.preloaded);
    RC_ASSERT(batch.counts.sampled == expected.sampled);
    RC_ASSERT(batch.counts.rows_appended == expected.rows_appended);
    RC_ASSERT(batch.counts.rows_duplicate == expected.rows_duplicate);
    CheckMass(batch.mass);
  }

  void CheckSame() const {
    SampleBatch batch;
    table_->FillCounts(&batch);
    CheckCounts(batch);
    const proto::TableDescription description = table_->Describe();
    RC_ASSERT(description.rows() == model_.rows());
    RC_ASSERT(description.rows_evicted() == model_.counts().rows_appended - model_.rows());
    RC_ASSERT(description.max_priority() == model_.max_priority());
    RC_ASSERT(description.priorities_updated() == model_.priorities().updated);
    RC_ASSERT(description.priorities_unknown() == model_.priorities().unknown);
    CheckMass(description.mass());
    for (uint64_t stream = 0; stream < kStreams; ++stream) {
      RC_ASSERT(table_->Held({stream})[0].held_rows() == model_.Held(stream));
    }
  }

  TableOptions options_;
  Scheduler scheduler_;
  std::unique_ptr<Table> table_;
  ReferenceTable model_;
  bool is_open_ = false;
  uint64_t message_ = 0;
  PriorityOutcome last_outcome_;
  std::vector<Waiting> waiting_;
};

class TableModelTest : public ::testing::TestWithParam<proto::SelectorKind> {};

TEST_P(TableModelTest, ATableAndItsModelAgreeWhateverHappens) {
  const std::string selector = proto::SelectorKind_Name(GetParam());
  EXPECT_TRUE(rc::check(selector, [] {
    const auto options = *AnyOptions(GetParam());
    const auto operations = *rc::gen::container<std::vector<Operation>>(AnyOperation());
    TempDir dir;
    Comparison comparison(options, dir.File("rows"));
    for (const Operation& operation : operations) comparison.Do(operation);
    comparison.Do(Operation(DrawAll()));
    comparison.Do(Operation(Restart()));
    comparison.Do(Operation(DrawAll()));
  }));
}

INSTANTIATE_TEST_SUITE_P(Selectors, TableModelTest,
                         testing::Values(proto::UNIFORM, proto::PRIORITIZED, proto::FIFO,
                                         proto::LIFO, proto::MAX_HEAP, proto::MIN_HEAP),
                         [](const auto& info) { return proto::SelectorKind_Name(info.param); });

}  // namespace
}  // namespace troupe
