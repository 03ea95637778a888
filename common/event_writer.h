#ifndef TROUPE_COMMON_EVENT_WRITER_H_
#define TROUPE_COMMON_EVENT_WRITER_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace troupe {

// Scalars in a TensorBoard event file: TFRecords (length, masked CRC-32C) of Event messages
// (proto/tensorboard.proto).  A process that continues a run makes a new file in the same folder;
// TensorBoard joins them.
//
// Not thread-safe.
class EventWriter final {
 public:
  // Makes `directory` if need be, and a file in it.  Errors name the path.
  static absl::StatusOr<std::unique_ptr<EventWriter>> Create(const std::string& directory);
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  // `step`: environment steps or updates, whichever the tag is drawn against.
  absl::Status WriteScalar(absl::string_view tag, int64_t step, double value,
                           absl::Time time = absl::Now());
  // Hands everything to the kernel.
  absl::Status Flush();

  const std::string& path() const { return path_; }

 private:
  EventWriter(std::string path, std::FILE* file) : path_(std::move(path)), file_(file) {}
  absl::Status WriteRecord(const std::string& record);

  const std::string path_;
  std::FILE* const file_;  // owned
};

}  // namespace troupe

#endif  // TROUPE_COMMON_EVENT_WRITER_H_
