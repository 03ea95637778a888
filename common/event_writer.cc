#include "common/event_writer.h"

#include <errno.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "proto/tensorboard.pb.h"

namespace troupe {
namespace {

// TFRecord's masking: a CRC over data that holds CRCs would be weak.
uint32_t MaskedCrc32c(const void* data, size_t size_bytes) {
  const uint32_t crc = Crc32c(0, data, size_bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

double UnixSeconds(absl::Time time) { return absl::ToDoubleSeconds(time - absl::UnixEpoch()); }

// TensorBoard takes every file whose name holds "tfevents".
std::string FileName() {
  char host[256] = {};
  if (gethostname(host, sizeof(host) - 1) != 0) std::strcpy(host, "localhost");
  return absl::StrCat("events.out.tfevents.", absl::ToUnixNanos(absl::Now()), ".", host, ".",
                      getpid());
}

absl::Status FileError(const std::string& what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot ", what, " ", path));
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventWriter>> EventWriter::Create(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot make folder ", directory));
  }
  const std::string path = absl::StrCat(directory, "/", FileName());
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return FileError("create", path);
  auto writer = std::unique_ptr<EventWriter>(new EventWriter(path, file));
  proto::Event first;
  first.set_wall_time(UnixSeconds(absl::Now()));
  first.set_file_version("brain.Event:2");
  if (absl::Status status = writer->WriteRecord(first.SerializeAsString()); !status.ok()) {
    return status;
  }
  if (absl::Status status = writer->Flush(); !status.ok()) return status;
  return writer;
}

EventWriter::~EventWriter() { std::fclose(file_); }

absl::Status EventWriter::WriteScalar(absl::string_view tag, int64_t step, double value,
                                      absl::Time time) {
  proto::Event event;
  event.set_wall_time(UnixSeconds(time));
  event.set_step(step);
  proto::Summary::Value* scalar = event.mutable_summary()->add_value();
  scalar->set_tag(tag.data(), tag.size());
  scalar->set_simple_value(static_cast<float>(value));
  return WriteRecord(event.SerializeAsString());
}

absl::Status EventWriter::Flush() {
  return std::fflush(file_) == 0 ? absl::OkStatus() : FileError("write to", path_);
}

absl::Status EventWriter::WriteRecord(const std::string& record) {
  const uint64_t size_bytes = record.size();
  const uint32_t size_crc = MaskedCrc32c(&size_bytes, sizeof(size_bytes));
  const uint32_t data_crc = MaskedCrc32c(record.data(), record.size());
  const auto put = [this](const void* data, size_t size) {
    return std::fwrite(data, 1, size, file_) == size;
  };
  if (put(&size_bytes, sizeof(size_bytes)) && put(&size_crc, sizeof(size_crc)) &&
      put(record.data(), record.size()) && put(&data_crc, sizeof(data_crc))) {
    return absl::OkStatus();
  }
  return FileError("write to", path_);
}

}  // namespace troupe
