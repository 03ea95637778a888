#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/version.h"
#include "deploy/operator/status.h"

namespace troupe {
namespace {

constexpr size_t kColumns = 100;
constexpr size_t kClientColumns = 44;

// "1,234,567"
std::string WithCommas(uint64_t number) {
  std::string text = absl::StrCat(number);
  for (auto at = static_cast<int>(text.size()) - 3; at > 0; at -= 3) text.insert(at, 1, ',');
  return text;
}

std::string Rounded(double rate) { return WithCommas(static_cast<uint64_t>(std::llround(rate))); }

// At most `columns`, without its middle if need be.
std::string Shortened(const std::string& text, size_t columns) {
  if (text.size() <= columns) return text;
  const size_t end = (columns - 2) / 2;
  return absl::StrCat(text.substr(0, columns - 2 - end), "..", text.substr(text.size() - end));
}

// The words of `text` in lines of kColumns, each after `indent` spaces.
std::string Wrapped(const std::string& text, size_t indent) {
  std::string lines, line;
  for (const absl::string_view word : absl::StrSplit(text, ' ')) {
    if (!line.empty() && indent + line.size() + 1 + word.size() > kColumns) {
      absl::StrAppend(&lines, std::string(indent, ' '), line, "\n");
      line = "  ";
    } else if (!line.empty()) {
      line += ' ';
    }
    absl::StrAppend(&line, word);
  }
  return absl::StrCat(lines, std::string(indent, ' '), line, "\n");
}

std::string FiguresLine(const std::string& shard, const std::string& table,
                        const TableFigures& figures) {
  const double full = figures.capacity_rows > 0 ? 100.0 * static_cast<double>(figures.rows) /
                                                      static_cast<double>(figures.capacity_rows)
                                                : 0;
  return absl::StrFormat("%-5s %-12s %13s %4.0f%% %9s %11s %9.2f %7.2f %5d %5d %5d\n", shard,
                         Shortened(table, 12), WithCommas(figures.rows), full,
                         Rounded(figures.steps_per_second), Rounded(figures.sampled_per_second),
                         figures.samples_per_insert(), figures.lag(), figures.writers,
                         figures.samplers, figures.followers);
}

std::string HeadLine(const ClusterStatus& status) {
  const std::string run = status.Run();
  const auto answer = std::count_if(status.answers.begin(), status.answers.end(),
                                    [](const absl::Status& each) { return each.ok(); });
  const PolicyVersion version = PolicyVersion::Unpack(status.SnapshotVersion());
  return Wrapped(
      absl::StrFormat("%s: %d of %d shards answer, %s environment steps, policy %d of epoch %d; "
                      "rates over %.1f s",
                      run.empty() ? "no run yet" : absl::StrCat("run ", run), answer,
                      status.addresses.size(), WithCommas(status.Sum().env_steps), version.counter,
                      version.epoch, absl::ToDoubleSeconds(status.interval)),
      0);
}

std::string Figures(const ClusterStatus& status) {
  std::string text = absl::StrFormat("%-5s %-12s %13s %5s %9s %11s %9s %7s %5s %5s %5s\n", "SHARD",
                                     "TABLE", "ROWS", "FULL", "STEPS/S", "SAMPLED/S", "S/INSERT",
                                     "LAG", "WRITE", "SAMPL", "FOLL");
  int lines = 0;
  for (size_t shard = 0; shard < status.reports.size(); ++shard) {
    const ShardReports& reports = status.reports[shard];
    for (int i = 0; i < reports.after.tables_size(); ++i, ++lines) {
      absl::StrAppend(&text, FiguresLine(absl::StrCat(shard), reports.after.tables(i).name(),
                                         FiguresOf(reports, i, status.interval)));
    }
  }
  if (lines > 1) absl::StrAppend(&text, FiguresLine("sum", "", status.Sum()));
  return text;
}

std::string ShardWords(const ClusterStatus& status, size_t shard) {
  const std::string name = absl::StrCat("shard ", shard, ", ", status.addresses[shard], ": ");
  if (!status.answered(shard)) {
    return Wrapped(absl::StrCat(name, "NO ANSWER: ", status.answers[shard].message()), 0);
  }
  const proto::DescribeReply& report = status.reports[shard].after;
  std::string text = Wrapped(absl::StrCat(name, StateInWords(report)), 0);
  for (const proto::TableDescription& table : report.tables()) {
    for (const std::string& words : LimiterInWords(table)) {
      absl::StrAppend(&text, Wrapped(absl::StrCat(table.name(), ": ", words), 2));
    }
  }
  if (!report.messages_wait_for().empty()) {
    absl::StrAppend(&text, Wrapped(absl::StrCat("memory: ", report.messages_wait_for()), 2));
  }
  return text;
}

std::string ConnectedTable(const ClusterStatus& status) {
  if (status.connected.empty()) return "nobody is connected\n";
  std::string text = absl::StrFormat("%-9s %-44s %-8s %-7s %7s %8s %10s\n", "CONNECTED", "CLIENT",
                                     "ROLE", "SHARDS", "STREAMS", "ROWS/S", "WINDOWS/S");
  for (const Connected& one : status.connected) {
    const std::string shards = absl::StrJoin(one.shards, ",");
    absl::StrAppend(&text,
                    absl::StrFormat("%-9s %-44s %-8s %-7s %7d %8s %10s\n", one.kind,
                                    Shortened(one.client, kClientColumns),
                                    Shortened(one.role.empty() ? "-" : one.role, 8),
                                    Shortened(shards, 7), one.streams, Rounded(one.rows_per_second),
                                    Rounded(one.windows_per_second)));
  }
  return text;
}

}  // namespace

std::string StatusText(const ClusterStatus& status) {
  std::string text = absl::StrCat(HeadLine(status), "\n", Figures(status), "\n");
  for (size_t shard = 0; shard < status.addresses.size(); ++shard) {
    absl::StrAppend(&text, ShardWords(status, shard));
  }
  return absl::StrCat(text, "\n", ConnectedTable(status));
}

}  // namespace troupe
