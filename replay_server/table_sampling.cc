// The half of Table that learners see: sampling, and calls that wait.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "replay_server/table.h"

namespace troupe {
namespace {

proto::WaitReason ReasonFor(Limit limit) {
  switch (limit) {
    case Limit::kMinSize:
      return proto::MIN_SIZE;
    case Limit::kSamplesPerInsert:
      return proto::SAMPLES_PER_INSERT;
    case Limit::kShare:
      return proto::SHARE;
    case Limit::kQueueLength:
      return proto::QUEUE_LENGTH;
    case Limit::kNone:
      break;
  }
  return proto::NO_WAIT;
}

void Fill(const WaitTimes& times, proto::Waits* waits) {
  waits->set_calls(static_cast<uint32_t>(times.calls));
  waits->set_longest_seconds(times.longest.count());
  waits->set_total_seconds(times.total.count());
}

}  // namespace

LimiterCounts Table::CountsOfAll() const {
  LimiterCounts counts = others_;
  if (log_ == nullptr) return counts;
  counts.unsampled_here = windows_->unsampled();
  counts.inserted_here = log_->counts().inserted;
  counts.inserted += counts.inserted_here;
  counts.preloaded += log_->counts().preloaded;
  counts.sampled += log_->counts().sampled;
  const int64_t available = windows_->MaxBatch();
  const auto lacks_windows = [&](const SampleQuery& query) {
    const uint64_t wanted = query.num_windows;
    return static_cast<int64_t>(wanted) > available && limiter_.SampleFits(wanted, counts);
  };
  counts.starved_here = available == 0 || waiting_.AnySampler(lacks_windows);
  return counts;
}

void Table::TakeShare() {
  const LimiterCounts counts = CountsOfAll();
  others_.share_here = static_cast<double>(counts.inserted_here) +
                       limiter_.Headroom(counts) / static_cast<double>(num_shards_);
}

std::string Table::WhyWaits(const SampleQuery& query) const {
  if (log_ == nullptr) return "the first actor: there are no rows yet";
  if (query.num_windows == 0) {
    if (log_->counts().inserted > query.inserted_above) return "";
    const std::string limit = limiter_.WhySampleWaits(query.lacks_windows, CountsOfAll());
    return absl::StrCat("more than ", query.inserted_above, " windows inserted; there are ",
                        log_->counts().inserted, limit.empty() ? "" : "; no sample fits, ", limit);
  }
  if (std::string why = limiter_.WhySampleWaits(query.num_windows, CountsOfAll()); !why.empty()) {
    return why;
  }
  if (static_cast<int64_t>(query.num_windows) <= windows_->MaxBatch()) return "";
  return absl::StrCat("windows: ", query.num_windows, " wanted, ", windows_->MaxBatch(),
                      " selectable on this shard; inserts here free it, and nothing limits them");
}

proto::WaitReason Table::ReasonToWait(const SampleQuery& query) const {
  if (log_ == nullptr) return proto::FIRST_ACTOR;
  const uint64_t wanted = std::max(query.num_windows, query.lacks_windows);
  const Limit limit = limiter_.SampleLimit(wanted, CountsOfAll());
  if (limit != Limit::kNone) return ReasonFor(limit);
  return query.num_windows > 0 ? proto::WINDOWS : proto::NEXT_ROWS;
}

bool Table::Admits(const SampleQuery& query) const {
  if (log_ == nullptr) return false;
  if (query.num_windows == 0) return log_->counts().inserted > query.inserted_above;
  return static_cast<int64_t>(query.num_windows) <= windows_->MaxBatch() &&
         limiter_.SampleFits(query.num_windows, CountsOfAll());
}

void Table::AddRows(const Selection& selection, PinnedRows* rows) {
  rows->Pin(&pins_[selection.block]);
  uint32_t block = selection.block;
  uint32_t slot = selection.slot;
  for (uint32_t rest = options_.window.length; rest > 0;) {
    const uint32_t count = std::min(rest, kRowsPerBlock - slot);
    rows->AddRows(log_->row(block, slot), log_->RowsBytes(block, slot, count));
    rest -= count;
    slot = 0;
    block = log_->next(block);
  }
}

void Table::Draw(uint64_t n, SampleBatch* batch) {
  const absl::Span<const Selection> selections = windows_->Draw(n);
  // In a large table each lies somewhere else: all are asked for before the first is waited for.
  for (const Selection& selection : selections) {
    log_->Prefetch(selection.block);
    __builtin_prefetch(&pins_[selection.block], /*rw=*/1);
  }
  for (const Selection& selection : selections) {
    batch->row_ids.push_back(log_->RowId(selection.block, selection.slot));
    batch->probabilities.push_back(selection.probability);
    AddRows(selection, &batch->windows);
  }
  LogCounts counts = log_->counts();
  counts.sampled += n;
  log_->CommitCounts(counts);
}

bool Table::SampleOrWait(const SampleQuery& query, const WaiterPtr& sampler, SampleBatch* batch) {
  absl::MutexLock lock(&mu_);
  batch->Clear();
  if (!Admits(query)) {
    waiting_.AddSampler(query, sampler, WaitingCalls::Clock::now());
    WakeAdmitted();  // writers, if it waits for windows
    return false;
  }
  sampler->since.reset();
  if (query.num_windows > 0) {
    Draw(query.num_windows, batch);
    TakeShare();
    WakeAdmitted();
    waiting_.NoteWindows(batch->windows.size_bytes(), WaitingCalls::Clock::now());
  }
  FillCountsLocked(batch);
  return true;
}

Admission Table::AdmitWriterOrWait(const WaiterPtr& writer) {
  absl::MutexLock lock(&mu_);
  const auto now = WaitingCalls::Clock::now();
  if (limiter_.WritersMayWrite(CountsOfAll())) return waiting_.AdmitInTurn(writer, now);
  waiting_.HoldBack(writer, now);
  return Admission::kHeldBack;
}

void Table::Forget(const WaiterPtr& waiter) {
  absl::MutexLock lock(&mu_);
  waiting_.Forget(waiter);
}

void Table::WakeAdmitted() {
  if (waiting_.holds_back_writers() && limiter_.WritersMayWrite(CountsOfAll())) {
    waiting_.WakeHeldBack();
  }
  waiting_.WakeSamplers([this](const SampleQuery& query) {
    mu_.AssertHeld();
    return Admits(query);
  });
}

void Table::FillCounts(SampleBatch* batch) const {
  absl::MutexLock lock(&mu_);
  batch->Clear();
  FillCountsLocked(batch);
}

void Table::FillCountsLocked(SampleBatch* batch) const {
  if (log_ == nullptr) return;
  batch->mass = windows_->Mass();
  batch->num_windows = windows_->size();
  batch->counts = log_->counts();
}

void Table::NoteOthers(uint64_t inserted, uint64_t preloaded, uint64_t sampled,
                       uint32_t num_shards) {
  absl::MutexLock lock(&mu_);
  if (num_shards > 0) num_shards_ = num_shards;
  // They may shrink: a shard that was replaced by an empty one takes its counts along.
  others_.inserted = inserted;
  others_.preloaded = preloaded;
  others_.sampled = sampled;
  TakeShare();
  WakeAdmitted();
}

void Table::NoteSampled(uint64_t sampled) {
  absl::MutexLock lock(&mu_);
  if (log_ == nullptr || sampled <= log_->counts().sampled) return;
  LogCounts counts = log_->counts();
  counts.sampled = sampled;
  log_->CommitCounts(counts);
  TakeShare();
  WakeAdmitted();
}

uint64_t Table::window_bytes() const {
  absl::MutexLock lock(&mu_);
  return log_ == nullptr ? 0 : options_.window.length * log_->stride_bytes();
}

proto::TableDescription Table::Describe() const {
  absl::MutexLock lock(&mu_);
  proto::TableDescription description;
  description.set_name(options_.name);
  description.set_window_length(options_.window.length);
  description.set_window_stride(options_.window.stride);
  description.set_selector(proto::SelectorKind_Name(options_.selector));
  description.set_capacity_rows(options_.capacity_rows);
  description.set_never_evict(options_.never_evict);
  description.set_max_priority(windows_ == nullptr ? 1 : windows_->max_priority());
  description.set_priorities_updated(priorities_.updated);
  description.set_priorities_unknown(priorities_.unknown);
  description.set_append_calls(append_calls_);
  description.set_sample_calls(sample_calls_);
  description.set_follow_calls(follow_calls_);
  description.set_version_lag_sum(version_lag_sum_);
  description.set_version_lag_rows(version_lag_rows_);
  DescribeWaits(&description);
  if (log_ != nullptr) DescribeLog(&description);
  return description;
}

void Table::DescribeWaits(proto::TableDescription* description) const {
  description->set_writers_wait_for(
      waiting_.DescribeHeldBack(limiter_.WhyWritersWait(CountsOfAll())));
  description->set_samplers_wait_for(waiting_.DescribeSamplers([this](const SampleQuery& query) {
    mu_.AssertHeld();
    return WhyWaits(query);
  }));
  Fill(waiting_.HeldBack(), description->mutable_writers());
  Fill(waiting_.Samplers(), description->mutable_samplers());
  description->mutable_writers()->set_reason(waiting_.holds_back_writers()
                                                 ? ReasonFor(limiter_.WriterLimit(CountsOfAll()))
                                                 : proto::NO_WAIT);
  const std::optional<SampleQuery> lacking = waiting_.FirstLacking();
  description->mutable_samplers()->set_reason(lacking.has_value() ? ReasonToWait(*lacking)
                                                                  : proto::NO_WAIT);
}

void Table::DescribeLog(proto::TableDescription* description) const {
  const LogCounts& counts = log_->counts();
  *description->mutable_layout() = layout_->proto();
  description->set_rows(log_->rows());
  description->set_rows_appended(counts.rows_appended);
  description->set_rows_evicted(counts.rows_appended - log_->rows());
  description->set_rows_duplicate(counts.rows_duplicate);
  description->set_mass(windows_->Mass());
  description->mutable_counts()->set_env_steps(counts.env_steps);
  description->mutable_counts()->set_inserted(counts.inserted);
  description->mutable_counts()->set_sampled(counts.sampled);
  description->mutable_counts()->set_preloaded(counts.preloaded);
  description->set_corrupt_blocks(log_->corrupt_blocks());
  for (const std::string& loss : log_->losses()) description->add_recovery_losses(loss);
}

}  // namespace troupe
