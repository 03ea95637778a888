#include "common/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace troupe {
namespace {

constexpr uint32_t kReflectedPolynomial = 0x82f63b78;

constexpr std::array<uint32_t, 256> MakeByteTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ kReflectedPolynomial : crc >> 1;
    table[byte] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kByteTable = MakeByteTable();

uint32_t PortableUpdate(uint32_t crc, const uint8_t* data, size_t size_bytes) {
  for (; size_bytes > 0; --size_bytes) crc = crc >> 8 ^ kByteTable[(crc ^ *data++) & 0xff];
  return crc;
}

#if defined(__x86_64__)
// Three independent lanes hide the instruction's latency of three cycles.
constexpr size_t kLaneBytes = 256;

// crc -> crc of kLaneBytes zero bytes after it, a linear map, tabulated by byte of `crc`.
using ShiftTable = std::array<std::array<uint32_t, 256>, 4>;

constexpr ShiftTable MakeShiftTable() {
  ShiftTable table{};
  for (int position = 0; position < 4; ++position) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      uint32_t crc = byte << (8 * position);
      for (size_t i = 0; i < kLaneBytes; ++i) crc = crc >> 8 ^ kByteTable[crc & 0xff];
      table[position][byte] = crc;
    }
  }
  return table;
}

uint64_t ShiftByLane(uint64_t crc) {
  static const ShiftTable table = MakeShiftTable();
  return table[0][crc & 0xff] ^ table[1][crc >> 8 & 0xff] ^ table[2][crc >> 16 & 0xff] ^
         table[3][crc >> 24 & 0xff];
}

uint64_t Load64(const uint8_t* data) {
  uint64_t value;
  std::memcpy(&value, data, sizeof(value));
  return value;
}

__attribute__((target("sse4.2"))) uint32_t Sse42Update(uint32_t crc, const uint8_t* data,
                                                       size_t size_bytes) {
  uint64_t first = crc;
  for (; size_bytes >= 3 * kLaneBytes; size_bytes -= 3 * kLaneBytes, data += 3 * kLaneBytes) {
    uint64_t second = 0;
    uint64_t third = 0;
    for (size_t i = 0; i < kLaneBytes; i += 8) {
      first = _mm_crc32_u64(first, Load64(data + i));
      second = _mm_crc32_u64(second, Load64(data + kLaneBytes + i));
      third = _mm_crc32_u64(third, Load64(data + 2 * kLaneBytes + i));
    }
    first = ShiftByLane(ShiftByLane(first) ^ second) ^ third;
  }
  for (; size_bytes >= 8; size_bytes -= 8, data += 8) first = _mm_crc32_u64(first, Load64(data));
  uint32_t result = static_cast<uint32_t>(first);
  for (; size_bytes > 0; --size_bytes) result = _mm_crc32_u8(result, *data++);
  return result;
}
#endif

}  // namespace

uint32_t Crc32c(uint32_t crc, const void* data, size_t size_bytes) {
  const auto* bytes = static_cast<const uint8_t*>(data);
#if defined(__x86_64__)
  static const bool has_sse42 = __builtin_cpu_supports("sse4.2");
  if (has_sse42) return ~Sse42Update(~crc, bytes, size_bytes);
#endif
  return ~PortableUpdate(~crc, bytes, size_bytes);
}

}  // namespace troupe
