#ifndef TROUPE_COMMON_CRC32C_H_
#define TROUPE_COMMON_CRC32C_H_

#include <cstddef>
#include <cstdint>

namespace troupe {

// CRC-32C (Castagnoli; RFC 3720 B.4) of `data`, continuing from `crc` (0 to begin), so that
// Crc32c(Crc32c(0, a), b) == Crc32c(0, ab).  Uses the SSE4.2 instruction where there is one.
uint32_t Crc32c(uint32_t crc, const void* data, size_t size_bytes);

}  // namespace troupe

#endif  // TROUPE_COMMON_CRC32C_H_
