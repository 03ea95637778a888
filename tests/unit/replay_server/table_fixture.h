#ifndef TROUPE_TESTS_UNIT_REPLAY_SERVER_TABLE_FIXTURE_H_
#define TROUPE_TESTS_UNIT_REPLAY_SERVER_TABLE_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "replay_server/table.h"
#include "tests/unit/replay_server/rows.h"

namespace troupe {

// A table of 512 rows, if the test says nothing else, in a directory of its own.
class TableFixture : public ::testing::Test {
 protected:
  TableFixture() {
    options_.name = "replay";
    options_.path = dir_.File("rows");
    options_.capacity_rows = 512;
  }

  // The table as a process finds it that is started again.
  void Restart() {
    table_ = nullptr;
    absl::StatusOr<std::unique_ptr<Table>> table = Table::Make(options_, &scheduler_);
    ASSERT_TRUE(table.ok()) << table.status();
    table_ = *std::move(table);
  }
  // The same, with the layout that the first actor brings.
  void Make() {
    ASSERT_NO_FATAL_FAILURE(Restart());
    ASSERT_TRUE(table_->Open("run", TestLayout()).ok());
  }

  TempDir dir_;
  TableOptions options_;
  Scheduler scheduler_;
  std::unique_ptr<Table> table_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_REPLAY_SERVER_TABLE_FIXTURE_H_
