#ifndef TROUPE_TESTS_CHAOS_SHARD_KILL_KNOWN_ROWS_H_
#define TROUPE_TESTS_CHAOS_SHARD_KILL_KNOWN_ROWS_H_

#include <cstdint>
#include <string>

#include "proto/experience.pb.h"

namespace troupe {

// Rows of HalfCheetah's layout, every byte of which follows from a seed, the stream and the number
// of the row: a row that anybody altered or put elsewhere is seen.
class KnownRows final {
 public:
  static constexpr uint64_t kStrideBytes = 16 + 4 * (17 + 6 + 1);
  static proto::Layout LayoutProto();

  explicit KnownRows(uint64_t seed) : seed_(seed) {}

  // Rows [first_row, first_row + num_rows) of the stream, packed.
  std::string Pack(uint64_t stream, uint64_t first_row, uint64_t num_rows) const;
  // CRC-32C of the stream's rows up to `end_row`, where `crc` is that of its first `row` rows.
  uint32_t ExtendCrc(uint32_t crc, uint64_t stream, uint64_t row, uint64_t end_row) const;

 private:
  uint64_t seed_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_CHAOS_SHARD_KILL_KNOWN_ROWS_H_
