// The half of Table that learners see: sampling, and calls that wait.
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "replay_server/table.h"

namespace troupe {

LimiterCounts Table::CountsOfAll() const {
  LimiterCounts counts;
  counts.inserted = others_inserted_;
  counts.preloaded = others_preloaded_;
  counts.sampled = others_sampled_;
  counts.unsampled_here = unsampled_;
  counts.share_here = insert_until_;
  if (log_ == nullptr) return counts;
  counts.inserted_here = log_->counts().inserted;
  counts.inserted += counts.inserted_here;
  counts.preloaded += log_->counts().preloaded;
  counts.sampled += log_->counts().sampled;
  const auto lacks_windows = [&](const WaiterPtr& sampler) {
    mu_.AssertHeld();
    const uint64_t wanted = sampler->query.num_windows;
    return static_cast<int64_t>(wanted) > Available() && limiter_.SampleFits(wanted, counts);
  };
  counts.starved_here =
      Available() == 0 || std::any_of(samplers_.begin(), samplers_.end(), lacks_windows);
  return counts;
}

int64_t Table::Available() const {
  const int64_t available = selector_->MaxBatch();
  return options_.max_times_sampled == 0 ? available
                                         : std::min(available, static_cast<int64_t>(draws_left_));
}

void Table::TakeShare() {
  const LimiterCounts counts = CountsOfAll();
  insert_until_ =
      static_cast<double>(counts.inserted_here) + limiter_.Headroom(counts) / options_.num_shards;
}

std::string Table::WhyWaits(const SampleQuery& query) const {
  if (log_ == nullptr) return "the first actor: there are no rows yet";
  if (query.num_windows == 0) {
    if (log_->counts().inserted > query.inserted_above) return "";
    const std::string limit = limiter_.WhySampleWaits(1, CountsOfAll());
    return absl::StrCat("more than ", query.inserted_above, " windows inserted; there are ",
                        log_->counts().inserted, limit.empty() ? "" : "; no sample fits, ", limit);
  }
  if (std::string why = limiter_.WhySampleWaits(query.num_windows, CountsOfAll()); !why.empty()) {
    return why;
  }
  if (static_cast<int64_t>(query.num_windows) <= Available()) return "";
  return absl::StrCat("windows: ", query.num_windows, " wanted, ", Available(),
                      " selectable on this shard; inserts here free it, and nothing limits them");
}

bool Table::Admits(const SampleQuery& query) const {
  if (log_ == nullptr) return false;
  if (query.num_windows == 0) return log_->counts().inserted > query.inserted_above;
  return static_cast<int64_t>(query.num_windows) <= Available() &&
         limiter_.SampleFits(query.num_windows, CountsOfAll());
}

// Counts one more sampling of a window; false if it has had its number already.
bool Table::CountSampled(const Selection& selection) {
  uint8_t& times = log_->times_sampled(selection.block, selection.slot);
  const uint8_t max_times = options_.max_times_sampled;
  if (max_times > 0 && times >= max_times) return false;
  if (times == 0) unsampled_--;
  if (times < 255) times++;
  if (max_times > 0) {
    draws_left_--;
    if (times == max_times) {
      selector_->Remove(selection.block, uint64_t{1} << selection.slot);
      selectable_--;
    }
  }
  return true;
}

// REQUIRES: Admits() n windows.
void Table::Select(uint64_t n) {
  selections_.clear();
  if (!tracks_times_) {
    selector_->Select(static_cast<int64_t>(n), random_, &selections_);
    return;
  }
  while (selections_.size() < n) {
    // A window drawn twice may have reached its limit the first time: then another is drawn.
    drawn_.clear();
    selector_->Select(static_cast<int64_t>(n - selections_.size()), random_, &drawn_);
    for (const Selection& selection : drawn_) {
      if (CountSampled(selection)) selections_.push_back(selection);
    }
  }
}

void Table::AddRows(const Selection& selection, PinnedRows* rows) {
  rows->Pin(&pins_[selection.block]);
  uint32_t block = selection.block;
  uint32_t slot = selection.slot;
  for (uint32_t rest = options_.window.length; rest > 0;) {
    const uint32_t count = std::min(rest, kRowsPerBlock - slot);
    rows->AddRows(log_->row(block, slot), count * log_->stride_bytes());
    rest -= count;
    slot = 0;
    block = log_->next(block);
  }
}

bool Table::SampleOrWait(const SampleQuery& query, const WaiterPtr& sampler, SampleBatch* batch) {
  absl::MutexLock lock(&mu_);
  batch->Clear();
  if (!Admits(query)) {
    sampler->query = query;
    if (!sampler->since.has_value()) sampler->since = std::chrono::steady_clock::now();
    samplers_.push_back(sampler);
    WakeAdmitted();  // writers, if it waits for windows
    return false;
  }
  sampler->since.reset();
  if (query.num_windows > 0) {
    Select(query.num_windows);
    for (const Selection& selection : selections_) {
      batch->row_ids.push_back(log_->RowId(selection.block, selection.slot));
      batch->probabilities.push_back(selection.probability);
      AddRows(selection, &batch->windows);
    }
    LogCounts counts = log_->counts();
    counts.sampled += query.num_windows;
    log_->CommitCounts(counts);
    TakeShare();
    WakeAdmitted();
    const auto now = std::chrono::steady_clock::now();
    turns_.NoteWindows(batch->windows.size_bytes(), now);
    WakeWhoseTurnItIs(now);
  }
  FillCountsLocked(batch);
  return true;
}

Admission Table::AdmitWriterOrWait(const WaiterPtr& writer) {
  absl::MutexLock lock(&mu_);
  const auto now = std::chrono::steady_clock::now();
  if (limiter_.WritersMayWrite(CountsOfAll())) {
    writer->since.reset();
    if (turns_.IsWriters(now)) return Admission::kAdmitted;
    awaiting_turn_.push_back(writer);
    return Admission::kNotItsTurn;
  }
  if (!writer->since.has_value()) writer->since = now;
  writers_.push_back(writer);
  return Admission::kHeldBack;
}

void Table::WakeWhoseTurnItIs(std::chrono::steady_clock::time_point now) {
  if (!turns_.IsWriters(now)) return;
  for (const WaiterPtr& writer : awaiting_turn_) scheduler_->Post(writer->wake);
  awaiting_turn_.clear();
}

void Table::Forget(const WaiterPtr& waiter) {
  absl::MutexLock lock(&mu_);
  writers_.remove(waiter);
  awaiting_turn_.remove(waiter);
  samplers_.remove(waiter);
}

void Table::WakeAdmitted() {
  if (!writers_.empty() && limiter_.WritersMayWrite(CountsOfAll())) {
    for (const WaiterPtr& writer : writers_) scheduler_->Post(writer->wake);
    writers_.clear();
  }
  samplers_.remove_if([this](const WaiterPtr& sampler) {
    mu_.AssertHeld();
    if (!Admits(sampler->query)) return false;
    scheduler_->Post(sampler->wake);
    return true;
  });
}

void Table::FillCounts(SampleBatch* batch) const {
  absl::MutexLock lock(&mu_);
  batch->Clear();
  FillCountsLocked(batch);
}

void Table::FillCountsLocked(SampleBatch* batch) const {
  if (log_ == nullptr) return;
  batch->mass = selector_->Mass();
  batch->num_windows = selectable_;
  batch->counts = log_->counts();
}

void Table::NoteOthers(uint64_t inserted, uint64_t preloaded, uint64_t sampled) {
  absl::MutexLock lock(&mu_);
  // They may shrink: a shard that was replaced by an empty one takes its counts along.
  others_inserted_ = inserted;
  others_preloaded_ = preloaded;
  others_sampled_ = sampled;
  TakeShare();
  WakeAdmitted();
}

uint64_t Table::window_bytes() const {
  absl::MutexLock lock(&mu_);
  return log_ == nullptr ? 0 : options_.window.length * log_->stride_bytes();
}

std::string Table::DescribeWaiters(const std::list<WaiterPtr>& waiters, absl::string_view who,
                                   const std::string& why) const {
  if (waiters.empty()) return "";
  auto first = std::chrono::steady_clock::time_point::max();
  for (const WaiterPtr& waiter : waiters) first = std::min(first, *waiter->since);
  const absl::Duration waited = absl::FromChrono(std::chrono::steady_clock::now() - first);
  return absl::StrCat(waiters.size(), " ", who, ", the first for ",
                      absl::FormatDuration(absl::Floor(waited, absl::Milliseconds(1))), ": ", why);
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
  description.set_max_priority(max_priority_);
  description.set_priorities_updated(priorities_.updated);
  description.set_priorities_unknown(priorities_.unknown);
  description.set_append_calls(append_calls_);
  description.set_sample_calls(sample_calls_);
  description.set_follow_calls(follow_calls_);
  description.set_version_lag_sum(version_lag_sum_);
  description.set_version_lag_rows(version_lag_rows_);
  description.set_writers_wait_for(
      DescribeWaiters(writers_, "writing", limiter_.WhyWritersWait(CountsOfAll())));
  if (!samplers_.empty()) {
    const auto drawing =
        std::find_if(samplers_.begin(), samplers_.end(),
                     [](const WaiterPtr& sampler) { return sampler->query.num_windows > 0; });
    const WaiterPtr& told = drawing == samplers_.end() ? samplers_.front() : *drawing;
    description.set_samplers_wait_for(
        DescribeWaiters(samplers_, "sampling", WhyWaits(told->query)));
  }
  if (log_ == nullptr) return description;
  const LogCounts& counts = log_->counts();
  *description.mutable_layout() = layout_->proto();
  description.set_rows(log_->rows());
  description.set_rows_appended(counts.rows_appended);
  description.set_rows_evicted(counts.rows_appended - log_->rows());
  description.set_rows_duplicate(counts.rows_duplicate);
  description.set_mass(selector_->Mass());
  description.mutable_counts()->set_env_steps(counts.env_steps);
  description.mutable_counts()->set_inserted(counts.inserted);
  description.mutable_counts()->set_sampled(counts.sampled);
  description.mutable_counts()->set_preloaded(counts.preloaded);
  description.set_corrupt_blocks(log_->corrupt_blocks());
  for (const std::string& loss : log_->losses()) description.add_recovery_losses(loss);
  return description;
}

}  // namespace troupe
