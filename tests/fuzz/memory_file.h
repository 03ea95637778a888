#ifndef TROUPE_TESTS_FUZZ_MEMORY_FILE_H_
#define TROUPE_TESTS_FUZZ_MEMORY_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace troupe {

// The bytes of the mapped file `path`, made if there is none, where memory_file.cc stands in for
// replay_server/mapped_file.cc: mapping a real file costs twenty times what recovery does, and on
// the heap AddressSanitizer sees an access behind the end.  Not thread-safe.
std::vector<uint8_t>& MemoryFile(const std::string& path);
void RemoveMemoryFile(const std::string& path);

}  // namespace troupe

#endif  // TROUPE_TESTS_FUZZ_MEMORY_FILE_H_
