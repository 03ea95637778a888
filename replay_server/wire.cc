#include "replay_server/wire.h"

#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "grpcpp/support/proto_buffer_reader.h"

namespace troupe {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;

constexpr uint32_t Tag(int field, WireFormatLite::WireType type) {
  return static_cast<uint32_t>(field) << 3 | type;
}

constexpr auto kVarint = WireFormatLite::WIRETYPE_VARINT;
constexpr auto kFixed64 = WireFormatLite::WIRETYPE_FIXED64;
constexpr auto kBytes = WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
constexpr uint32_t kAppendOpenTag = Tag(proto::AppendRequest::kOpenFieldNumber, kBytes);
constexpr uint32_t kAppendRunsTag = Tag(proto::AppendRequest::kRunsFieldNumber, kBytes);
constexpr uint32_t kAppendDrainedTag = Tag(proto::AppendRequest::kDrainedFieldNumber, kVarint);
constexpr uint32_t kRunStreamTag = Tag(proto::RowRun::kStreamFieldNumber, kFixed64);
constexpr uint32_t kRunFirstRowTag = Tag(proto::RowRun::kFirstRowFieldNumber, kVarint);
constexpr uint32_t kRunRowsTag = Tag(proto::RowRun::kRowsFieldNumber, kBytes);

// The next length-delimited field where it lies.  False: it is cut off.
bool ReadView(CodedInputStream* in, absl::string_view* view) {
  int size_bytes;
  if (!in->ReadVarintSizeAsInt(&size_bytes)) return false;
  const void* data = "";
  int available = 0;
  if (size_bytes > 0 && !in->GetDirectBufferPointer(&data, &available)) return false;
  if (available < size_bytes) return false;
  *view = absl::string_view(static_cast<const char*>(data), size_bytes);
  return in->Skip(size_bytes);
}

// As generated code does: of a field that is there twice the last counts, unknown ones are skipped.
bool ParseRun(absl::string_view bytes, RowRunView* run) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(bytes.data()),
                      static_cast<int>(bytes.size()));
  while (const uint32_t tag = in.ReadTag()) {
    bool ok;
    if (tag == kRunStreamTag) {
      ok = in.ReadLittleEndian64(&run->stream);
    } else if (tag == kRunFirstRowTag) {
      ok = in.ReadVarint64(&run->first_row);
    } else if (tag == kRunRowsTag) {
      ok = ReadView(&in, &run->rows);
    } else {
      ok = WireFormatLite::SkipField(&in, tag);
    }
    if (!ok) return false;
  }
  return in.ConsumedEntireMessage();
}

template <typename T>
uint8_t* WritePacked(int field, const std::vector<T>& values, uint8_t* to) {
  if (values.empty()) return to;
  const auto size_bytes = static_cast<uint32_t>(values.size() * sizeof(T));
  to = CodedOutputStream::WriteTagToArray(Tag(field, kBytes), to);
  to = CodedOutputStream::WriteVarint32ToArray(size_bytes, to);
  std::memcpy(to, values.data(), size_bytes);
  return to + size_bytes;
}

// Room for tags, lengths, counts and what else does not grow with the batch.
constexpr size_t kReplyOverheadBytes = 160;

void SetCounts(const LogCounts& counts, proto::TableCounts* to) {
  to->set_env_steps(counts.env_steps);
  to->set_inserted(counts.inserted);
  to->set_sampled(counts.sampled);
  to->set_preloaded(counts.preloaded);
  to->set_rows_appended(counts.rows_appended);
}

uint8_t* WriteFollowedRun(const FollowedRun& run, uint8_t* to) {
  const auto rows_bytes = static_cast<uint32_t>(run.size_bytes);
  const size_t fields_bytes = 1 + CodedOutputStream::VarintSize64(run.block) + 1 + 8 + 1 +
                              CodedOutputStream::VarintSize64(run.first_row) + 1 +
                              CodedOutputStream::VarintSize32(rows_bytes) + rows_bytes;
  to = WireFormatLite::WriteTagToArray(proto::FollowReply::kRunsFieldNumber, kBytes, to);
  to = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(fields_bytes), to);
  to = WireFormatLite::WriteUInt64ToArray(proto::FollowedRows::kBlockFieldNumber, run.block, to);
  to = WireFormatLite::WriteFixed64ToArray(proto::FollowedRows::kStreamFieldNumber, run.stream, to);
  to = WireFormatLite::WriteUInt64ToArray(proto::FollowedRows::kFirstRowFieldNumber, run.first_row,
                                          to);
  to = WireFormatLite::WriteTagToArray(proto::FollowedRows::kRowsFieldNumber, kBytes, to);
  to = CodedOutputStream::WriteVarint32ToArray(rows_bytes, to);
  std::memcpy(to, run.rows, rows_bytes);
  return to + rows_bytes;
}

}  // namespace

absl::Status AppendMessage::Parse(grpc::ByteBuffer* bytes) {
  Clear();
  // One slice if gRPC received it so, else a copy of some tens of KiB: 1/50 of the cost of a row.
  if (!bytes->TrySingleSlice(&bytes_).ok() && !bytes->DumpToSingleSlice(&bytes_).ok()) {
    return absl::InternalError("cannot read a message of rows");
  }
  bytes->Clear();
  return ParseFields(bytes_.begin(), static_cast<int>(bytes_.size()));
}

absl::Status AppendMessage::ParseFields(const uint8_t* data, int size_bytes) {
  CodedInputStream in(data, size_bytes);
  bool ok = true;
  while (const uint32_t tag = in.ReadTag()) {
    absl::string_view view;
    if (tag == kAppendRunsTag) {
      ok = ReadView(&in, &view) && ParseRun(view, &runs_.emplace_back());
    } else if (tag == kAppendOpenTag) {
      has_open_ = true;
      ok = ReadView(&in, &view) && open_.MergeFromString(std::string(view));
    } else if (tag == kAppendDrainedTag) {
      uint64_t value = 0;
      ok = in.ReadVarint64(&value);
      drained_ = value != 0;
    } else {
      ok = WireFormatLite::SkipField(&in, tag);
    }
    if (!ok) break;
  }
  if (ok && in.ConsumedEntireMessage()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("these ", size_bytes, " bytes are not a message of Append"));
}

void AppendMessage::Clear() {
  bytes_ = grpc::Slice();
  has_open_ = drained_ = false;
  open_.Clear();
  runs_.clear();
}

grpc::ByteBuffer EncodeSampleReply(SampleBatch* batch) {
  proto::SampleReply rest;
  rest.set_mass(batch->mass);
  rest.set_num_windows(batch->num_windows);
  SetCounts(batch->counts, rest.mutable_counts());
  const size_t windows_bytes = batch->windows.size_bytes();
  const size_t most = windows_bytes + kReplyOverheadBytes +
                      batch->row_ids.size() * sizeof(uint64_t) +
                      batch->probabilities.size() * sizeof(float);
  grpc::Slice slice(most);
  auto* const begin = const_cast<uint8_t*>(slice.begin());
  uint8_t* to = begin;
  if (windows_bytes > 0) {
    to = CodedOutputStream::WriteTagToArray(Tag(proto::SampleReply::kWindowsFieldNumber, kBytes),
                                            to);
    to = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(windows_bytes), to);
    batch->windows.MoveTo(to);
    to += windows_bytes;
  }
  to = WritePacked(proto::SampleReply::kRowIdsFieldNumber, batch->row_ids, to);
  to = WritePacked(proto::SampleReply::kProbabilitiesFieldNumber, batch->probabilities, to);
  to += rest.SerializePartialAsString().copy(reinterpret_cast<char*>(to), kReplyOverheadBytes);
  batch->Clear();
  const grpc::Slice used = slice.sub(0, to - begin);
  return grpc::ByteBuffer(&used, 1);
}

grpc::ByteBuffer EncodeFollowReply(FollowBatch* batch) {
  proto::FollowReply rest;
  rest.set_rows_missed(batch->rows_missed);
  SetCounts(batch->counts, rest.mutable_counts());
  grpc::Slice slice(batch->rows_bytes + batch->runs.size() * kFollowedRunOverheadBytes +
                    kReplyOverheadBytes);
  auto* const begin = const_cast<uint8_t*>(slice.begin());
  uint8_t* to = begin;
  for (const FollowedRun& run : batch->runs) to = WriteFollowedRun(run, to);
  to += rest.SerializePartialAsString().copy(reinterpret_cast<char*>(to), kReplyOverheadBytes);
  batch->Clear();
  const grpc::Slice used = slice.sub(0, to - begin);
  return grpc::ByteBuffer(&used, 1);
}

grpc::ByteBuffer EncodeMessage(const google::protobuf::MessageLite& message) {
  grpc::Slice slice(message.ByteSizeLong());
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

absl::Status DecodeMessage(grpc::ByteBuffer* bytes, google::protobuf::MessageLite* message) {
  grpc::ProtoBufferReader reader(bytes);
  const bool ok = reader.status().ok() && message->ParseFromZeroCopyStream(&reader);
  const size_t size_bytes = bytes->Length();
  bytes->Clear();
  if (ok) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("these ", size_bytes, " bytes are not a ", message->GetTypeName()));
}

}  // namespace troupe
