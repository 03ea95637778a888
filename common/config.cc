#include "common/config.h"

#include <cerrno>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/config_checks.h"
#include "common/config_overrides.h"
#include "common/frame_stack.h"
#include "common/nearest.h"
#include "common/recurrence.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"

namespace troupe {
namespace {

// Messages within messages, known or unknown; proto/config.proto has five.
constexpr int kMaxDepth = 50;

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             std::fclose);
  const std::string what = absl::StrCat("cannot read configuration ", path);
  if (file == nullptr) return absl::ErrnoToStatus(errno, what);
  std::string text;
  char buffer[4096];
  while (const size_t size = std::fread(buffer, 1, sizeof(buffer), file.get())) {
    text.append(buffer, size);
  }
  if (std::ferror(file.get())) return absl::ErrnoToStatus(errno, what);
  return text;
}

// Gathers the parser's errors, and its warnings of unknown fields, as "origin:line: text".
class FaultCollector final : public google::protobuf::io::ErrorCollector {
 public:
  FaultCollector(absl::string_view text, absl::string_view origin)
      : lines_(absl::StrSplit(text, '\n')), origin_(origin) {}

  void AddError(int line, int column, const std::string& message) override {
    Add(line, absl::StrCat(message, NearestHint(message)));
  }
  void AddWarning(int line, int column, const std::string& message) override {
    Add(line, absl::StrCat(message, NearestHint(message)));
  }
  std::vector<std::string> Take() { return std::move(faults_); }

 private:
  void Add(int line, const std::string& what) {  // `line` counts from 0
    std::string fault = absl::StrCat(origin_, ":", line + 1, ": ", what);
    if (line >= 0 && line < static_cast<int>(lines_.size())) {
      absl::StrAppend(&fault, "  [", absl::StripAsciiWhitespace(lines_[line]), "]");
    }
    faults_.push_back(std::move(fault));
  }

  // The parser names the message type and the field in its text only; should its words change
  // one day, the hint is missing and nothing else.
  static std::string NearestHint(absl::string_view message) {
    if (!absl::ConsumePrefix(&message, "Message type \"")) return "";
    const std::vector<absl::string_view> parts = absl::StrSplit(message, '"');
    if (parts.size() < 3 || parts[1] != " has no field named ") return "";
    const google::protobuf::Descriptor* type =
        google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(
            std::string(parts[0]));
    if (type == nullptr) return "";
    return absl::StrCat(" The nearest is ", NearestName(parts[2], FieldNames(*type)), ".");
  }

  const std::vector<std::string> lines_;
  const std::string origin_;
  std::vector<std::string> faults_;
};

void Append(std::vector<std::string> more, std::vector<std::string>& faults) {
  for (std::string& fault : more) faults.push_back(std::move(fault));
}

// Writes out what identifies a run, so that a stored configuration keeps it should a default
// change.
void FillIn(proto::Config& config) {
  config.set_run(config.run());
  config.set_seed(config.seed());
  config.set_total_env_steps(config.total_env_steps());
  proto::Environment& environment = *config.mutable_environment();
  environment.set_id(environment.has_gymnasium() ? environment.gymnasium().id() : environment.id());
  if (config.tables_size() == 0) config.add_tables();
  if (config.learner().algorithm_case() == proto::Learner::ALGORITHM_NOT_SET) {
    config.mutable_learner()->mutable_sac();
  }
}

// What follows from the algorithm for the table that it learns from.
void FillTable(const proto::Sac& sac, int32_t ranks, proto::Table& table) {
  proto::RateLimiter& limiter = *table.mutable_rate_limiter();
  if (!table.window().has_length()) {
    table.mutable_window()->set_length(static_cast<int32_t>(SacWindowLength(sac)));
  }
  // Those in which a transition begins are told from others by the learner.
  if (LeadRows(sac) > 0 && !table.window().has_start_at_final_rows()) {
    table.mutable_window()->set_start_at_final_rows(true);
  }
  if (!limiter.has_min_size()) limiter.set_min_size(sac.random_steps());
  if (!limiter.has_samples_per_insert()) {
    limiter.set_samples_per_insert(ranks * sac.batch_size() * sac.updates_per_env_step());
  }
}

// A queue: windows one after another, each sampled once, the oldest first.
void FillTable(const proto::Ppo& ppo, int32_t ranks, proto::Table& table) {
  proto::WindowRule& window = *table.mutable_window();
  const auto lead_rows = static_cast<int32_t>(LeadRows(ppo));
  if (!window.has_length()) window.set_length(lead_rows + ppo.unroll_length() + 1);
  if (!window.has_stride()) window.set_stride(ppo.unroll_length() + 1);
  if (!window.has_start_at_final_rows()) window.set_start_at_final_rows(true);
  if (!table.has_selector()) table.set_selector(proto::FIFO);
  if (!table.has_max_times_sampled()) table.set_max_times_sampled(1);
  proto::RateLimiter& limiter = *table.mutable_rate_limiter();
  if (!limiter.has_samples_per_insert()) limiter.set_samples_per_insert(0);
  if (!limiter.has_queue_length()) {
    limiter.set_queue_length(2 * int64_t{ranks} * ppo.batch_windows());
  }
}

}  // namespace

int64_t SampledAtOnce(const proto::Config& config) {
  return config.learner().has_ppo() ? 1 : config.learner().sac().batch_size();
}

absl::StatusOr<proto::Config> LoadConfig(const std::string& path,
                                         absl::Span<const std::string> sets) {
  if (path.empty()) return ParseConfig("", "(no --config)", sets);
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  return ParseConfig(*text, path, sets);
}

absl::StatusOr<proto::Config> ParseConfig(absl::string_view text, absl::string_view origin,
                                          absl::Span<const std::string> sets) {
  FaultCollector collector(text, origin);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&collector);
  parser.AllowUnknownField(true);  // so that it goes on; the collector reports each
  parser.SetRecursionLimit(kMaxDepth);
  proto::Config config;
  const bool whole = parser.ParseFromString(std::string(text), &config);
  std::vector<std::string> faults = collector.Take();
  for (const std::string& set : sets) {
    const absl::Status status = ApplyOverride(set, config);
    if (!status.ok()) faults.emplace_back(status.message());
  }
  FillIn(config);
  Append(RangeFaults(config), faults);
  // What a half-read file lacks is no fault of its own.
  if (whole) Append(CrossFieldFaults(config), faults);
  if (faults.empty()) return config;
  return absl::InvalidArgumentError(absl::StrCat(
      faults.size() == 1 ? "wrong configuration:" : "wrong configuration, several faults:", "\n  ",
      absl::StrJoin(faults, "\n  ")));
}

absl::StatusOr<proto::Table> EffectiveTable(const proto::Config& config, absl::string_view name) {
  std::vector<std::string> names;
  for (const proto::Table& candidate : config.tables()) {
    names.push_back(candidate.name());
    if (candidate.name() != name) continue;
    proto::Table table = candidate;
    proto::RateLimiter& limiter = *table.mutable_rate_limiter();
    if (name == config.learner().table()) {
      config.learner().has_ppo()
          ? FillTable(config.learner().ppo(), config.learner().ranks(), table)
          : FillTable(config.learner().sac(), config.learner().ranks(), table);
    }
    if (!limiter.has_slack()) {
      limiter.set_slack(2.0 * config.learner().ranks() * SampledAtOnce(config) +
                        64 * limiter.samples_per_insert());
    }
    return table;
  }
  return absl::NotFoundError(absl::StrCat(
      "no table '", name, "' in the configuration; there are: ", absl::StrJoin(names, ", ")));
}

std::string PrintConfig(const proto::Config& config) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(config, &text);
  return text;
}

}  // namespace troupe
