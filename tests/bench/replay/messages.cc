#include "tests/bench/replay/messages.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "grpcpp/support/slice.h"
#include "proto/replay.pb.h"

namespace troupe {
namespace {

// The low three bits of a protobuf tag.
enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

constexpr uint64_t Tag(int field, WireType type) {
  return static_cast<uint64_t>(field) << 3 | type;
}

size_t VarintSize(uint64_t value) {
  size_t size = 1;
  for (; value >= 128; value >>= 7) ++size;
  return size;
}

uint8_t* PutVarint(uint64_t value, uint8_t* out) {
  for (; value >= 128; value >>= 7) *out++ = static_cast<uint8_t>(value | 128);
  *out++ = static_cast<uint8_t>(value);
  return out;
}

uint8_t* PutTag(int field, WireType type, uint8_t* out) { return PutVarint(Tag(field, type), out); }

// Size of a RowRun; all of its tags, and its own, take one byte.
size_t RunSize(const RowSource& stream, size_t row_bytes) {
  return 9 + 1 + VarintSize(stream.next_row()) + 1 + VarintSize(row_bytes) + row_bytes;
}

uint8_t* PutRun(RowSource& stream, int64_t num_rows, size_t row_bytes, uint8_t* out) {
  out = PutTag(proto::AppendRequest::kRunsFieldNumber, kBytes, out);
  out = PutVarint(RunSize(stream, row_bytes), out);
  out = PutTag(proto::RowRun::kStreamFieldNumber, kFixed64, out);
  const uint64_t name = stream.stream();
  std::memcpy(out, &name, sizeof(name));
  out = PutTag(proto::RowRun::kFirstRowFieldNumber, kVarint, out + sizeof(name));
  out = PutVarint(stream.next_row(), out);
  out = PutTag(proto::RowRun::kRowsFieldNumber, kBytes, out);
  out = PutVarint(row_bytes, out);
  stream.Pack(num_rows, out);
  return out + row_bytes;
}

// Reads on over the slices of one message.
class SliceReader final {
 public:
  explicit SliceReader(const grpc::ByteBuffer& bytes) : left_(bytes.Length()) {
    if (!bytes.Dump(&slices_).ok()) left_ = 0;
  }

  size_t left() const { return left_; }
  uint64_t ReadTag() {
    uint64_t tag = 0;
    return ReadVarint(&tag) ? tag : 0;  // no field has the tag 0
  }

  bool Read(void* to, size_t size) {
    return Pass(size, [&to](const uint8_t* from, size_t part) {
      std::memcpy(to, from, part);
      to = static_cast<uint8_t*>(to) + part;
    });
  }

  bool Skip(size_t size) {
    return Pass(size, [](const uint8_t*, size_t) {});
  }

  bool ReadVarint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      uint8_t byte = 0;
      if (!Read(&byte, 1)) return false;
      *value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) return true;
    }
    return false;
  }

  // REQUIRES: its tag was read.
  bool SkipField(uint64_t tag) {
    uint64_t size = 0;
    if (tag >> 3 == 0) return false;
    switch (tag & 7) {
      case kVarint:
        return ReadVarint(&size);
      case kFixed64:
        return Skip(8);
      case kFixed32:
        return Skip(4);
      case kBytes:
        return ReadVarint(&size) && Skip(size);
      default:
        return false;
    }
  }

 private:
  template <typename Visit>
  bool Pass(size_t size, const Visit& visit) {
    if (size > left_) return false;
    left_ -= size;
    while (size > 0) {
      const grpc::Slice& slice = slices_[slice_];
      const size_t part = std::min(size, slice.size() - offset_);
      visit(slice.begin() + offset_, part);
      size -= part;
      offset_ += part;
      if (offset_ == slice.size()) ++slice_, offset_ = 0;
    }
    return true;
  }

  std::vector<grpc::Slice> slices_;
  size_t slice_ = 0;
  size_t offset_ = 0;
  size_t left_;
};

template <typename T>
bool ReadPacked(SliceReader& reader, std::vector<T>* out) {
  uint64_t size = 0;
  if (!reader.ReadVarint(&size) || size > reader.left() || size % sizeof(T) != 0) return false;
  out->resize(size / sizeof(T));
  return reader.Read(out->data(), size);
}

bool ReadCounts(SliceReader& reader, SampledWindows* reply) {
  std::vector<uint8_t> bytes;
  proto::TableCounts counts;
  if (!ReadPacked(reader, &bytes)) return false;
  if (!counts.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return false;
  reply->inserted = counts.inserted();
  reply->sampled = counts.sampled();
  return true;
}

bool ReadReplyField(SliceReader& reader, uint64_t tag, SampledWindows* reply) {
  switch (tag) {
    case Tag(proto::SampleReply::kWindowsFieldNumber, kBytes):
      return ReadPacked(reader, &reply->windows);
    case Tag(proto::SampleReply::kRowIdsFieldNumber, kBytes):
      return ReadPacked(reader, &reply->row_ids);
    case Tag(proto::SampleReply::kProbabilitiesFieldNumber, kBytes):
      return ReadPacked(reader, &reply->probabilities);
    case Tag(proto::SampleReply::kMassFieldNumber, kFixed64):
      return reader.Read(&reply->mass, sizeof(reply->mass));
    case Tag(proto::SampleReply::kCountsFieldNumber, kBytes):
      return ReadCounts(reader, reply);
    default:
      return reader.SkipField(tag);
  }
}

// Appends the rows to those of the runs before.
bool ReadRows(SliceReader& reader, FollowedBatch* batch) {
  uint64_t size = 0;
  if (!reader.ReadVarint(&size) || size > reader.left()) return false;
  const size_t before = batch->rows.size();
  batch->rows.resize(before + size);
  batch->runs.back().size_bytes = size;
  return reader.Read(batch->rows.data() + before, size);
}

bool ReadRun(SliceReader& reader, FollowedBatch* batch) {
  uint64_t size = 0;
  if (!reader.ReadVarint(&size) || size > reader.left()) return false;
  FollowedRun& run = batch->runs.emplace_back();
  const size_t end = reader.left() - size;
  while (reader.left() > end) {
    const uint64_t tag = reader.ReadTag();
    bool read = false;
    if (tag == Tag(proto::FollowedRows::kStreamFieldNumber, kFixed64)) {
      read = reader.Read(&run.stream, sizeof(run.stream));
    } else if (tag == Tag(proto::FollowedRows::kFirstRowFieldNumber, kVarint)) {
      read = reader.ReadVarint(&run.first_row);
    } else if (tag == Tag(proto::FollowedRows::kRowsFieldNumber, kBytes)) {
      read = ReadRows(reader, batch);
    } else {
      read = reader.SkipField(tag);
    }
    if (!read) return false;
  }
  return reader.left() == end;
}

}  // namespace

grpc::ByteBuffer Encode(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

bool Decode(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite* message) {
  grpc::Slice slice;
  if (!bytes.DumpToSingleSlice(&slice).ok()) return false;
  return message->ParseFromArray(slice.begin(), static_cast<int>(slice.size()));
}

grpc::ByteBuffer EncodeRows(absl::Span<RowSource> streams, int64_t rows_each) {
  const size_t row_bytes = static_cast<size_t>(rows_each * streams[0].stride_bytes());
  size_t size = 0;
  for (const RowSource& stream : streams) {
    const size_t run_size = RunSize(stream, row_bytes);
    size += 1 + VarintSize(run_size) + run_size;
  }
  const grpc::Slice slice(size);
  // Nobody else holds the slice yet.
  uint8_t* out = const_cast<uint8_t*>(slice.begin());
  for (RowSource& stream : streams) out = PutRun(stream, rows_each, row_bytes, out);
  return grpc::ByteBuffer(&slice, 1);
}

bool DecodeWindows(const grpc::ByteBuffer& bytes, SampledWindows* reply) {
  // What proto3 leaves out is empty or 0.
  size_t windows = 0;
  reply->row_ids.clear();
  reply->probabilities.clear();
  reply->mass = 0;
  SliceReader reader(bytes);
  while (reader.left() > 0) {
    const uint64_t tag = reader.ReadTag();
    if (!ReadReplyField(reader, tag, reply)) return false;
    if (tag >> 3 == proto::SampleReply::kWindowsFieldNumber) windows = reply->windows.size();
  }
  reply->windows.resize(windows);
  return true;
}

bool DecodeFollowed(const grpc::ByteBuffer& bytes, FollowedBatch* batch) {
  batch->rows.clear();
  batch->runs.clear();
  SliceReader reader(bytes);
  while (reader.left() > 0) {
    const uint64_t tag = reader.ReadTag();
    const bool is_run = tag == Tag(proto::FollowReply::kRunsFieldNumber, kBytes);
    if (!(is_run ? ReadRun(reader, batch) : reader.SkipField(tag))) return false;
  }
  return true;
}

}  // namespace troupe
