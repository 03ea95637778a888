#ifndef TROUPE_COMMON_LAYOUT_H_
#define TROUPE_COMMON_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/experience.pb.h"

namespace troupe {

// The first 16 bytes of every packed row, little-endian.
struct RowHeader {
  uint64_t policy_version = 0;  // PolicyVersion::Packed() of the snapshot that acted; 0: none
  uint32_t flags = 0;           // RowFlag bits
  float priority = 0;           // the actor's own priority; 0: none
};
static_assert(sizeof(RowHeader) == 16);

// A final row holds an observation and no action; it carries at least one of the bits.
enum RowFlag : uint32_t {
  kTerminated = 1,
  kTruncated = 2,
  // The episode goes on in the next row, with the same observation: the row closes an unroll, so
  // that the value of what follows is known before the next policy acts.
  kCut = 4,
};
inline constexpr uint32_t kFinalFlags = kTerminated | kTruncated | kCut;
inline bool IsFinal(uint32_t flags) { return (flags & kFinalFlags) != 0; }

// Names of the columns that the algorithms know.
//
// What a policy sees is in the column "observation", or in several, "observation.NAME" each: those
// of FLOAT32, one after the other, are one vector to it; one of UINT8 and three axes (height,
// width, channels) is an image.
inline constexpr absl::string_view kObservation = "observation";
inline constexpr absl::string_view kObservationPrefix = "observation.";
inline constexpr absl::string_view kAction = "action";
inline constexpr absl::string_view kReward = "reward";
// Logarithm of the density, or probability, with which the policy drew the action.
inline constexpr absl::string_view kLogProb = "log_prob";
// What a policy with a memory remembered before it saw the observation (common/recurrence.h).
inline constexpr absl::string_view kRecurrentState = "recurrent_state";

// Where one column lies in a packed row.
struct ColumnLayout {
  std::string name;
  proto::DType dtype = proto::FLOAT32;
  std::vector<int64_t> shape;
  int64_t num_elements = 0;
  int64_t offset_bytes = 0;
  int64_t size_bytes = 0;
  proto::Compression compression = proto::COMPRESSION_NONE;
};

// The columns of observations of a layout.
struct ObservationColumns {
  // Those of FLOAT32, which lie in a row without gaps.
  int64_t offset_bytes = 0;
  int64_t num_elements = 0;  // 0: there are none
  // None: no elements.
  ColumnLayout image;
};

// How rows are packed: the only code that knows.  Immutable, so thread-safe.
class Layout final {
 public:
  // INVALID_ARGUMENT names the column and the number that is out of range.
  static absl::StatusOr<Layout> FromProto(const proto::Layout& layout);

  const proto::Layout& proto() const { return proto_; }
  // Of packed rows.  Where has_compressed_columns(), they travel and are stored encoded
  // (common/row_sizes.h).
  int64_t stride_bytes() const { return stride_bytes_; }
  bool has_compressed_columns() const;
  absl::Span<const ColumnLayout> columns() const { return columns_; }
  // NOT_FOUND lists the columns that there are.
  absl::StatusOr<ColumnLayout> Find(absl::string_view name) const;
  // INVALID_ARGUMENT names a column of observations of another type, a second image, a gap, or says
  // that there is none.
  absl::StatusOr<ObservationColumns> Observations() const;

  // OK if rows of `other` can be stored as rows of this layout; FAILED_PRECONDITION names the
  // first column that differs, and how.
  absl::Status CheckSame(const Layout& other) const;

 private:
  proto::Layout proto_;
  std::vector<ColumnLayout> columns_;
  int64_t stride_bytes_ = 0;
};

// The most that protobuf adds to the rows of one environment in a message, a RowRun: its own tag
// and length (6), the stream (9), the number of the first row (11), tag and length of the rows (6).
inline constexpr int64_t kRunOverheadBytes = 32;

// Size of one element. Unit: bytes.
int64_t ElementBytes(proto::DType dtype);

// `row` points at a packed row of at least one header.
RowHeader ReadRowHeader(const void* row);
void WriteRowHeader(const RowHeader& header, void* row);

}  // namespace troupe

#endif  // TROUPE_COMMON_LAYOUT_H_
