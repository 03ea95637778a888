#include "tests/chaos/shard_kill/known_rows.h"

#include <algorithm>
#include <cstring>

#include "common/crc32c.h"
#include "common/layout.h"

namespace troupe {
namespace {

constexpr uint64_t kEpisodeRows = 500;
constexpr uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;  // 2^64 / 1.618...

// The finalizer of splitmix64: every bit of the result depends on every bit of `x`.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

void AddColumn(const char* name, uint32_t size, proto::Layout* layout) {
  proto::Column* column = layout->add_columns();
  column->set_name(name);
  column->set_dtype(proto::FLOAT32);
  if (size > 0) column->add_shape(size);
}

}  // namespace

proto::Layout KnownRows::LayoutProto() {
  proto::Layout layout;
  layout.set_environment("HalfCheetah-v5");
  AddColumn("observation", 17, &layout);
  AddColumn("action", 6, &layout);
  AddColumn("reward", 0, &layout);
  return layout;
}

std::string KnownRows::Pack(uint64_t stream, uint64_t first_row, uint64_t num_rows) const {
  std::string rows(num_rows * kStrideBytes, '\0');
  char* out = rows.data();
  const uint64_t stream_key = Mix(seed_ * kGoldenRatio + stream);
  for (uint64_t row = first_row; row < first_row + num_rows; ++row, out += kStrideBytes) {
    const bool is_final = row % kEpisodeRows == kEpisodeRows - 1;
    WriteRowHeader({.policy_version = row + 1, .flags = is_final ? uint32_t{kTruncated} : 0}, out);
    uint64_t state = Mix(stream_key + row);
    for (uint64_t at = sizeof(RowHeader); at < kStrideBytes; at += sizeof(uint64_t)) {
      state += kGoldenRatio;
      const uint64_t word = Mix(state);
      std::memcpy(out + at, &word, sizeof(word));
    }
  }
  return rows;
}

uint32_t KnownRows::ExtendCrc(uint32_t crc, uint64_t stream, uint64_t row, uint64_t end_row) const {
  constexpr uint64_t kRowsAtOnce = 256;
  while (row < end_row) {
    const uint64_t count = std::min(kRowsAtOnce, end_row - row);
    const std::string rows = Pack(stream, row, count);
    crc = Crc32c(crc, rows.data(), rows.size());
    row += count;
  }
  return crc;
}

}  // namespace troupe
