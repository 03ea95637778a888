#include "tests/unit/table_model/reference_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "tests/unit/replay_server/rows.h"

namespace troupe {
namespace {

constexpr uint64_t kRows = 64;  // of one block
constexpr uint64_t kRowNumberLimit = uint64_t{1} << 56;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool IsPriority(float value) { return value >= 0 && value <= 1e30f; }

}  // namespace

ReferenceTable::ReferenceTable(const TableOptions& options)
    : options_(options), num_blocks_((options.capacity_rows + kRows - 1) / kRows) {
  TakeShare();
}

// --- Rows. ---

absl::StatusCode ReferenceTable::CheckRuns(absl::Span<const RowRunView> runs) const {
  std::map<uint64_t, uint64_t> held = held_;
  for (const RowRunView& run : runs) {
    if (run.rows.empty() || run.rows.size() % kTestStride != 0) {
      return absl::StatusCode::kInvalidArgument;
    }
    const uint64_t count = run.rows.size() / kTestStride;
    if (run.first_row >= kRowNumberLimit || run.first_row + count > kRowNumberLimit) {
      return absl::StatusCode::kInvalidArgument;
    }
    uint64_t& next = held[run.stream];
    if (run.first_row > next) return absl::StatusCode::kFailedPrecondition;
    next = std::max(next, run.first_row + count);
  }
  return absl::StatusCode::kOk;
}

absl::StatusCode ReferenceTable::Append(absl::Span<const RowRunView> runs, bool preload) {
  if (const absl::StatusCode code = CheckRuns(runs); code != absl::StatusCode::kOk) return code;
  if (options_.never_evict) {
    ReferenceTable tried = *this;
    tried.Store(runs, preload);
    if (tried.newest_block_ > num_blocks_) return absl::StatusCode::kFailedPrecondition;
  }
  Store(runs, preload);
  return absl::StatusCode::kOk;
}

void ReferenceTable::Store(absl::Span<const RowRunView> runs, bool preload) {
  for (const RowRunView& run : runs) {
    for (uint64_t i = 0; i < run.rows.size() / kTestStride; ++i) {
      if (run.first_row + i < Held(run.stream)) {
        counts_.rows_duplicate++;
      } else {
        AppendRow(run.stream, run.rows.substr(i * kTestStride, kTestStride), preload);
      }
    }
  }
}

void ReferenceTable::AppendRow(uint64_t stream, absl::string_view bytes, bool preload) {
  const uint64_t number = Held(stream);
  const auto before = rows_.find({stream, number - 1});
  const bool begins_block = number % kRows == 0 || before == rows_.end();
  if (begins_block) BeginBlock();
  const RowHeader header = RowAt(bytes.data(), 0).header;
  Row row = {.bytes = std::string(bytes)};
  row.block = begins_block ? newest_block_ : before->second.block;
  row.is_final = IsFinal(header.flags);
  row.own_priority = header.priority;
  held_[stream] = number + 1;
  counts_.rows_appended++;
  if (!row.is_final) counts_.env_steps++;
  rows_[{stream, number}] = std::move(row);
  AddWindowThatEndsAt({stream, number}, preload);
}

// The ring is full: the oldest block goes, with the windows that start in it.
void ReferenceTable::BeginBlock() {
  newest_block_++;
  if (newest_block_ <= num_blocks_) return;
  const uint64_t oldest = newest_block_ - num_blocks_;
  std::erase_if(windows_, [&](const RowKey& key) { return rows_.at(key).block == oldest; });
  std::erase_if(rows_, [&](const auto& entry) { return entry.second.block == oldest; });
}

void ReferenceTable::AddWindowThatEndsAt(const RowKey& last, bool preload) {
  const auto [stream, end] = last;
  if (end + 1 < options_.window.length) return;
  const uint64_t begin = end + 1 - options_.window.length;
  if (begin % options_.window.stride != 0) return;
  for (uint64_t number = begin; number <= end; ++number) {
    if (!rows_.contains({stream, number})) return;
  }
  Row& first = rows_.at({stream, begin});
  if (first.is_final && !options_.window.start_at_final_rows) return;
  (preload ? counts_.preloaded : counts_.inserted)++;
  windows_.push_back({stream, begin});
  if (!UsesPriorities()) return;
  const bool has_own = first.own_priority > 0 && IsPriority(first.own_priority);
  first.priority = has_own ? first.own_priority : max_priority_;
  max_priority_ = std::max(max_priority_, *first.priority);
}

uint64_t ReferenceTable::Held(uint64_t stream) const {
  const auto found = held_.find(stream);
  return found == held_.end() ? 0 : found->second;
}

uint64_t ReferenceTable::RowId(const RowKey& key) const {
  return rows_.at(key).block * kRows + key.second % kRows;
}

std::vector<uint64_t> ReferenceTable::RowIds() const {
  std::vector<uint64_t> ids;
  for (const auto& [key, row] : rows_) ids.push_back(RowId(key));
  return ids;
}

// What is not in the file is forgotten: the other shards' counts, streams without rows, the largest
// priority of windows that are gone.  Windows count as added in the order of the blocks that
// completed them.
void ReferenceTable::Restart() {
  held_.clear();
  max_priority_ = 1;
  for (const auto& [key, row] : rows_) {
    held_[key.first] = key.second + 1;
    if (row.priority.has_value()) max_priority_ = std::max(max_priority_, *row.priority);
  }
  const auto age = [this](const RowKey& key) {
    const RowKey last = {key.first, key.second + options_.window.length - 1};
    return std::make_tuple(rows_.at(last).block, key.second);
  };
  std::sort(windows_.begin(), windows_.end(),
            [&](const RowKey& a, const RowKey& b) { return age(a) < age(b); });
  priorities_ = {};
  waiting_samplers_.clear();
  others_inserted_ = others_preloaded_ = others_sampled_ = 0;
  TakeShare();
}

// --- Drawing. ---

bool ReferenceTable::IsOrdered() const {
  return options_.selector != proto::UNIFORM && options_.selector != proto::PRIORITIZED;
}

bool ReferenceTable::UsesPriorities() const {
  return options_.selector == proto::PRIORITIZED || options_.selector == proto::MAX_HEAP ||
         options_.selector == proto::MIN_HEAP;
}

double ReferenceTable::Weight(const RowKey& window) const {
  if (options_.selector != proto::PRIORITIZED) return 1;
  const double priority = rows_.at(window).priority.value();
  if (priority == 0) return 0;
  return std::clamp(std::pow(priority, options_.priority_exponent), 1e-30, 1e28);
}

double ReferenceTable::Mass() const {
  double mass = 0;
  for (const RowKey& window : windows_) mass += Weight(window);
  return mass;
}

uint64_t ReferenceTable::Available() const {
  uint64_t draws = 0;
  for (const RowKey& window : windows_) {
    if (Weight(window) == 0) continue;
    const bool counts_down = options_.max_times_sampled > 0 && !IsOrdered();
    draws += counts_down ? options_.max_times_sampled - rows_.at(window).times_sampled : 1;
  }
  if (IsOrdered() || options_.max_times_sampled > 0 || draws == 0) return draws;
  return std::numeric_limits<int64_t>::max();
}

uint64_t ReferenceTable::Place(const RowKey& row) const {
  return (rows_.at(row).block - 1) % num_blocks_ * kRows + row.second % kRows;
}

bool ReferenceTable::ComesFirst(const RowKey& a, const RowKey& b) const {
  if (options_.selector == proto::FIFO) return true;
  if (options_.selector == proto::LIFO) return false;
  const float sign = options_.selector == proto::MAX_HEAP ? -1 : 1;
  const float priority_a = sign * rows_.at(a).priority.value();
  const float priority_b = sign * rows_.at(b).priority.value();
  return priority_a != priority_b ? priority_a < priority_b : Place(a) < Place(b);
}

std::vector<ReferenceTable::RowKey> ReferenceTable::InOrder() const {
  std::map<RowKey, size_t> added;
  for (size_t i = 0; i < windows_.size(); ++i) added[windows_[i]] = i;
  std::vector<RowKey> ordered = windows_;
  std::sort(ordered.begin(), ordered.end(), [&](const RowKey& a, const RowKey& b) {
    return added[a] < added[b] ? ComesFirst(a, b) : a != b && !ComesFirst(b, a);
  });
  return ordered;
}

std::optional<ReferenceTable::RowKey> ReferenceTable::FindWindow(uint64_t row_id) const {
  for (const RowKey& window : windows_) {
    if (RowId(window) == row_id) return window;
  }
  return std::nullopt;
}

bool ReferenceTable::HasBytes(const RowKey& window, absl::string_view bytes) const {
  std::string expected;
  for (uint64_t i = 0; i < options_.window.length; ++i) {
    expected += rows_.at({window.first, window.second + i}).bytes;
  }
  return bytes == expected;
}

std::string ReferenceTable::CheckProbability(const RowKey& window, double probability,
                                             double* mass) const {
  const auto is_right = [&] {
    const double expected = Weight(window) / *mass;
    return std::abs(probability - expected) <= 1e-4 * expected + 1e-37;
  };
  if (is_right()) return "";
  // Windows that reach their limit are missing from a second pass over what is left.
  *mass = Mass();
  if (is_right()) return "";
  return absl::StrCat("probability ", probability, " but weight ", Weight(window), " of ", *mass);
}

// Counts one more sampling of a window; false: it can be drawn no more.
bool ReferenceTable::CountDrawn(const RowKey& window) {
  Row& row = rows_.at(window);
  row.times_sampled++;
  if (options_.max_times_sampled == 0 || row.times_sampled < options_.max_times_sampled) {
    return true;
  }
  std::erase(windows_, window);
  return false;
}

std::string ReferenceTable::NoteDrawn(const std::vector<uint64_t>& row_ids,
                                      const std::vector<float>& probabilities,
                                      absl::string_view windows) {
  const uint64_t size_bytes = options_.window.length * kTestStride;
  const std::vector<RowKey> ordered = IsOrdered() ? InOrder() : std::vector<RowKey>();
  std::map<uint64_t, RowKey> by_id;
  for (const RowKey& window : windows_) by_id[RowId(window)] = window;
  double mass = Mass();
  for (size_t i = 0; i < row_ids.size(); ++i) {
    const auto found = by_id.find(row_ids[i]);
    if (found == by_id.end()) return absl::StrCat("no window has row id ", row_ids[i]);
    const RowKey window = found->second;
    std::string wrong;
    if (!windows.empty() && !HasBytes(window, windows.substr(i * size_bytes, size_bytes))) {
      wrong = "other bytes than were appended";
    } else if (!IsOrdered()) {
      wrong = CheckProbability(window, probabilities[i], &mass);
    } else if (window != ordered[i] || probabilities[i] != 1) {
      wrong =
          absl::StrCat("probability ", probabilities[i], ", expected for certain that from row ",
                       ordered[i].second, " of stream ", ordered[i].first);
    }
    if (!wrong.empty()) {
      return absl::StrCat("window ", i, " drawn, from row ", window.second, " of stream ",
                          window.first, ": ", wrong);
    }
    if (!CountDrawn(window)) by_id.erase(row_ids[i]);
  }
  counts_.sampled += row_ids.size();
  TakeShare();
  return "";
}

std::optional<PriorityOutcome> ReferenceTable::UpdatePriorities(
    const std::vector<uint64_t>& row_ids, const std::vector<float>& priorities) {
  if (row_ids.size() != priorities.size()) return std::nullopt;
  if (!std::all_of(priorities.begin(), priorities.end(), IsPriority)) return std::nullopt;
  PriorityOutcome outcome;
  for (size_t i = 0; i < row_ids.size(); ++i) {
    const std::optional<RowKey> window = FindWindow(row_ids[i]);
    if (!UsesPriorities() || !window.has_value()) {
      outcome.unknown++;
      continue;
    }
    outcome.updated++;
    rows_.at(*window).priority = priorities[i];
    max_priority_ = std::max(max_priority_, priorities[i]);
  }
  priorities_.updated += outcome.updated;
  priorities_.unknown += outcome.unknown;
  return outcome;
}

// --- The limiter: the formulas of common/rate_limit.h. ---

double ReferenceTable::Inserted() const {
  return static_cast<double>(counts_.inserted) + static_cast<double>(others_inserted_);
}

double ReferenceTable::Sampled() const {
  return static_cast<double>(counts_.sampled) + static_cast<double>(others_sampled_);
}

double ReferenceTable::WarmUp() const {
  const double preloaded = static_cast<double>(counts_.preloaded + others_preloaded_);
  return std::max(0.0, static_cast<double>(options_.rate_limit.min_size) - preloaded);
}

bool ReferenceTable::SampleFits(uint64_t n) const {
  const auto& [min_size, r, slack, queue_length] = options_.rate_limit;
  if (Inserted() < WarmUp()) return false;
  return r == 0 ||
         Sampled() + static_cast<double>(n) <= r * std::max(0.0, Inserted() - WarmUp()) + slack;
}

bool ReferenceTable::Admits(const SampleQuery& query) const {
  if (query.num_windows == 0) return counts_.inserted > query.inserted_above;
  return query.num_windows <= Available() && SampleFits(query.num_windows);
}

bool ReferenceTable::IsStarved() const {
  return Available() == 0 ||
         std::any_of(waiting_samplers_.begin(), waiting_samplers_.end(),
                     [this](uint64_t n) { return n > Available() && SampleFits(n); });
}

bool ReferenceTable::WritersMayWrite() const {
  if (IsStarved()) return true;
  const auto& [min_size, r, slack, queue_length] = options_.rate_limit;
  if (r > 0 && r * std::max(0.0, Inserted() - WarmUp()) - Sampled() > slack) return false;
  if (static_cast<double>(counts_.inserted) > insert_until_) return false;
  const auto unsampled = std::count_if(windows_.begin(), windows_.end(), [this](const RowKey& key) {
    return rows_.at(key).times_sampled == 0;
  });
  return queue_length == 0 || unsampled < queue_length || Inserted() < WarmUp();
}

void ReferenceTable::NoteOthers(uint64_t inserted, uint64_t preloaded, uint64_t sampled) {
  others_inserted_ = inserted;
  others_preloaded_ = preloaded;
  others_sampled_ = sampled;
  TakeShare();
}

void ReferenceTable::TakeShare() {
  const auto& [min_size, r, slack, queue_length] = options_.rate_limit;
  const double headroom =
      r == 0 ? kInfinity : std::max(0.0, WarmUp() + (Sampled() + slack) / r - Inserted());
  insert_until_ = static_cast<double>(counts_.inserted) + headroom / options_.num_shards;
}

}  // namespace troupe
