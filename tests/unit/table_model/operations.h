#ifndef TROUPE_TESTS_UNIT_TABLE_MODEL_OPERATIONS_H_
#define TROUPE_TESTS_UNIT_TABLE_MODEL_OPERATIONS_H_

#include <rapidcheck.h>

#include <cstdint>
#include <ostream>
#include <variant>
#include <vector>

#include "replay_server/table.h"

// What may happen to a table.  Numbers are relative to what the table holds when an operation's
// turn comes, so that every part of a sequence is a sequence too, and failing ones get short.
namespace troupe {

struct Run {
  enum Place { kNext, kResent, kGap, kNearTheLimit, kBeyondTheLimit };

  uint64_t stream = 0;
  Place place = kNext;
  uint64_t distance = 0;  // rows: from the next row, or from the limit
  uint64_t count = 1;     // rows
  std::vector<uint64_t> finals;
  uint64_t bytes_too_many = 0;
  float own_priority = 0;  // of every third row
};

struct AppendRuns {
  std::vector<Run> runs;
  bool preload = false;
};
struct Draw {
  uint64_t num_windows = 1;
  bool stays = false;  // the call goes on waiting if it has to
};
// As often as it takes to see which windows there are.
struct DrawAll {};
// A call that waits for inserts.
struct Poll {
  uint64_t more_than = 0;
};
struct AskToWrite {
  bool stays = false;
};
// One of those that wait ends.
struct GiveUp {
  uint64_t which = 0;
};
struct NewPriority {
  uint64_t which = 0;  // of the rows held, or one that is not held at all
  bool is_absurd = false;
  float priority = 0;
};
struct SetPriorities {
  std::vector<NewPriority> changes;
  bool one_missing = false;
  bool of_all_rows = false;  // the first priority, if there is one
};
struct NoteOthers {
  uint64_t inserted = 0;
  uint64_t preloaded = 0;
  uint64_t sampled = 0;
};
struct Restart {};

using Operation = std::variant<AppendRuns, Draw, DrawAll, Poll, AskToWrite, GiveUp, SetPriorities,
                               NoteOthers, Restart>;

std::ostream& operator<<(std::ostream& out, const Operation& operation);
std::ostream& operator<<(std::ostream& out, const TableOptions& options);

rc::Gen<Operation> AnyOperation();
// All but the path.
rc::Gen<TableOptions> AnyOptions(proto::SelectorKind selector);

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_TABLE_MODEL_OPERATIONS_H_
