#ifndef TROUPE_TESTS_FUZZ_REQUESTS_H_
#define TROUPE_TESTS_FUZZ_REQUESTS_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "common/layout.h"
#include "grpcpp/support/byte_buffer.h"
#include "replay_server/table.h"
#include "tests/fuzz/encoded_rows.h"

namespace troupe {

// The run that the seeds are of.
inline constexpr char kRun[] = "run";

// A table of four blocks.
struct SmallTable {
  const char* name;
  proto::SelectorKind selector;
  uint32_t window_length = 2;
  uint8_t max_times_sampled = 0;
  bool never_evict = false;
  bool is_encoded = false;  // its rows are

  TableOptions Options() const {
    TableOptions options;
    options.name = name;
    options.capacity_rows = 4 * kRowsPerBlock;
    options.window.length = window_length;
    options.selector = selector;
    options.max_times_sampled = max_times_sampled;
    options.never_evict = never_evict;
    return options;
  }
};

inline constexpr SmallTable kSmallTables[] = {{"replay", proto::UNIFORM},
                                              {"queue", proto::FIFO, 1, 1},
                                              {"ranked", proto::PRIORITIZED},
                                              {"stack", proto::LIFO, 3},
                                              {"best", proto::MAX_HEAP, 2, 2},
                                              {"worst", proto::MIN_HEAP, 64},
                                              {"rare", proto::PRIORITIZED, 1, 3},
                                              {"shown", proto::UNIFORM, 2, 0, true},
                                              {"frames", proto::UNIFORM, 2, 0, false, true}};

// Rows of 24 bytes.
inline Layout OneColumnLayout() {
  proto::Layout layout;
  proto::Column* column = layout.add_columns();
  column->set_name("observation");
  column->set_dtype(proto::FLOAT64);
  return Layout::FromProto(layout).value();
}

inline Layout LayoutOf(const SmallTable& table) {
  return table.is_encoded ? Layout::FromProto(EncodedLayout()).value() : OneColumnLayout();
}

// In one piece or in two, as a network may deliver it.
inline grpc::ByteBuffer InPieces(absl::string_view bytes) {
  const size_t cut = bytes.size() % 2 == 0 ? 0 : bytes.size() / 2;
  const grpc::Slice slices[] = {grpc::Slice(bytes.data(), cut),
                                grpc::Slice(bytes.data() + cut, bytes.size() - cut)};
  return grpc::ByteBuffer(slices, 2);
}

}  // namespace troupe

#endif  // TROUPE_TESTS_FUZZ_REQUESTS_H_
