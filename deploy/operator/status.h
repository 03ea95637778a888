#ifndef TROUPE_DEPLOY_OPERATOR_STATUS_H_
#define TROUPE_DEPLOY_OPERATOR_STATUS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/program.h"
#include "deploy/operator/connected.h"

namespace troupe {

// Figures of one table of one shard, or their sum; rates are over the interval.
struct TableFigures {
  uint64_t rows = 0;
  uint64_t capacity_rows = 0;
  uint64_t env_steps = 0;
  uint64_t inserted = 0;  // windows, ever; of all shards they decide with `sampled`
  uint64_t sampled = 0;
  double steps_per_second = 0;
  double sampled_per_second = 0;
  // Of the rows that came in the interval, or of all if none came.
  uint64_t lag_sum = 0;
  uint64_t lag_rows = 0;
  uint32_t writers = 0;
  uint32_t samplers = 0;
  uint32_t followers = 0;

  void Add(const TableFigures& other);
  double lag() const { return lag_rows > 0 ? static_cast<double>(lag_sum) / lag_rows : 0; }
  double samples_per_insert() const {
    return inserted > 0 ? static_cast<double>(sampled) / inserted : 0;
  }
};

// Figures of table number `table` of a shard.
TableFigures FiguresOf(const ShardReports& reports, int table, absl::Duration interval);

// A whole cluster as an operator sees it.
struct ClusterStatus {
  std::vector<std::string> addresses;  // one a shard, like the next two
  std::vector<absl::Status> answers;   // not OK: the shard is not reached; its reports are empty
  std::vector<ShardReports> reports;
  absl::Duration interval;
  std::vector<Connected> connected;

  bool answered(size_t shard) const { return answers[shard].ok(); }
  // Of all shards and tables.
  TableFigures Sum() const;
  // The run that a shard which answers belongs to; empty: none yet.
  std::string Run() const;
  uint64_t SnapshotVersion() const;
};

// What keeps writers and samplers of a table waiting, a sentence each.
std::vector<std::string> LimiterInWords(const proto::TableDescription& table);
// "serving", or what else it does.
std::string StateInWords(const proto::DescribeReply& report);

// A table of at most 100 columns, with a line end; and the same as JSON.
std::string StatusText(const ClusterStatus& status);
std::string StatusJson(const ClusterStatus& status);

struct StatusOptions {
  absl::Duration interval = absl::Seconds(2);
  absl::Duration timeout = absl::Seconds(5);
  bool json = false;
};

// Asks all shards twice, `interval` apart, and prints.  The error of every shard that did not
// answer, once the others are printed; PERMISSION_DENIED and the like without that.
absl::Status RunStatus(const Program& program, const StatusOptions& options);

}  // namespace troupe

#endif  // TROUPE_DEPLOY_OPERATOR_STATUS_H_
