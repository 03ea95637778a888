#ifndef TROUPE_TESTS_UNIT_CLIENT_SMALL_LAYOUT_H_
#define TROUPE_TESTS_UNIT_CLIENT_SMALL_LAYOUT_H_

#include "proto/experience.pb.h"

namespace troupe::testing {

// A layout of one FLOAT64 "reward" column: rows of 24 bytes.
inline proto::Layout SmallLayout() {
  proto::Layout layout;
  proto::Column* column = layout.add_columns();
  column->set_name("reward");
  column->set_dtype(proto::FLOAT64);
  return layout;
}

}  // namespace troupe::testing

#endif  // TROUPE_TESTS_UNIT_CLIENT_SMALL_LAYOUT_H_
