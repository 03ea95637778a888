#include "replay_server/row_log_format.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "common/layout.h"
#include "proto/experience.pb.h"

namespace troupe {
namespace {

constexpr char kMagic[8] = {'T', 'R', 'O', 'U', 'P', 'E', 'R', 'L'};
constexpr uint32_t kPackedFormat = 2;
constexpr uint32_t kEncodedFormat = 3;
constexpr uint64_t kPartBytes = 4096;
constexpr uint64_t kMaxMetadataBytes = uint64_t{1} << 28;
constexpr uint64_t kMaxStrideBytes = uint64_t{1} << 28;
constexpr uint64_t kMaxBlocks = uint64_t{1} << 31;
constexpr uint64_t kMaxRowsBytes = uint64_t{1} << 50;
// Of generations and rows: no writer comes near it, and sums of such numbers do not wrap.
constexpr uint64_t kMaxNumber = uint64_t{1} << 57;

uint64_t RoundUpToPart(uint64_t bytes) {
  return (bytes + kPartBytes - 1) / kPartBytes * kPartBytes;
}

uint32_t FileCheck(const FileHeader& header, absl::string_view metadata) {
  FileHeader unchecked = header;
  unchecked.check = 0;
  return Crc32c(Crc32c(0, &unchecked, sizeof(unchecked)), metadata.data(), metadata.size());
}

void AppendString(absl::string_view text, std::string* out) {
  const auto size = static_cast<uint32_t>(text.size());
  out->append(reinterpret_cast<const char*>(&size), sizeof(size));
  out->append(text.data(), text.size());
}

bool TakeString(absl::string_view* bytes, std::string* out) {
  uint32_t size;
  if (bytes->size() < sizeof(size)) return false;
  std::memcpy(&size, bytes->data(), sizeof(size));
  bytes->remove_prefix(sizeof(size));
  if (bytes->size() < size) return false;
  out->assign(bytes->data(), size);
  bytes->remove_prefix(size);
  return true;
}

uint64_t EncodedMetadataBytes(const LogMetadata& metadata) {
  return 3 * sizeof(uint32_t) + metadata.run.size() + metadata.table.size() +
         metadata.layout.size();
}

absl::StatusOr<RowSizes> SizesOf(const LogMetadata& metadata) {
  if (!metadata.has_encoded_rows) return RowSizes(metadata.stride_bytes);
  proto::Layout proto;
  const bool parsed = proto.ParseFromString(metadata.layout);
  const absl::StatusOr<Layout> layout = Layout::FromProto(proto);
  if (parsed && layout.ok()) {
    RowSizes sizes(*layout);
    if (!sizes.all_alike() && sizes.most() == metadata.stride_bytes) return sizes;
  }
  return absl::InvalidArgumentError("no row log has encoded rows of this layout and stride");
}

}  // namespace

absl::StatusOr<LogGeometry> ComputeGeometry(const LogMetadata& metadata) {
  const uint64_t metadata_bytes = EncodedMetadataBytes(metadata);
  if (metadata_bytes > kMaxMetadataBytes || metadata.stride_bytes < 16 ||
      metadata.stride_bytes > kMaxStrideBytes || metadata.num_blocks < 1 ||
      metadata.num_blocks > kMaxBlocks ||
      metadata.num_blocks > kMaxRowsBytes / (kRowsPerBlock * metadata.stride_bytes)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no row log can have ", metadata.num_blocks, " blocks of ", kRowsPerBlock, " rows of ",
        metadata.stride_bytes, " bytes with ", metadata_bytes, " bytes of metadata"));
  }
  absl::StatusOr<RowSizes> rows = SizesOf(metadata);
  if (!rows.ok()) return rows.status();
  LogGeometry geometry;
  geometry.rows = *std::move(rows);
  geometry.stride_bytes = metadata.stride_bytes;
  geometry.num_blocks = metadata.num_blocks;
  geometry.counts_offset = RoundUpToPart(sizeof(FileHeader) + metadata_bytes);
  geometry.headers_offset = geometry.counts_offset + RoundUpToPart(2 * sizeof(LogCountsSlot));
  geometry.times_offset =
      geometry.headers_offset + RoundUpToPart(metadata.num_blocks * sizeof(BlockHeader));
  geometry.priorities_offset =
      geometry.times_offset + RoundUpToPart(metadata.num_blocks * kRowsPerBlock);
  const uint64_t priorities_bytes =
      metadata.has_priorities ? metadata.num_blocks * kRowsPerBlock * sizeof(float) : 0;
  geometry.rows_offset = geometry.priorities_offset + RoundUpToPart(priorities_bytes);
  geometry.file_bytes =
      geometry.rows_offset + metadata.num_blocks * kRowsPerBlock * metadata.stride_bytes;
  return geometry;
}

std::string EncodeFileHeader(const LogMetadata& metadata) {
  std::string strings;
  AppendString(metadata.run, &strings);
  AppendString(metadata.table, &strings);
  AppendString(metadata.layout, &strings);
  FileHeader header = {};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.format_version = metadata.has_encoded_rows ? kEncodedFormat : kPackedFormat;
  header.stride_bytes = metadata.stride_bytes;
  header.num_blocks = metadata.num_blocks;
  header.metadata_bytes = strings.size();
  header.has_priorities = metadata.has_priorities ? 1 : 0;
  header.check = FileCheck(header, strings);
  return absl::StrCat(absl::string_view(reinterpret_cast<const char*>(&header), sizeof(header)),
                      strings);
}

absl::StatusOr<LogMetadata> ParseFileHeader(absl::Span<const uint8_t> file, bool may_be_cut) {
  FileHeader header;
  if (file.size() < sizeof(header)) {
    return absl::DataLossError(absl::StrCat(file.size(), " bytes are no row log"));
  }
  std::memcpy(&header, file.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    return absl::DataLossError("no row log: it begins with other bytes");
  }
  if (header.format_version != kPackedFormat && header.format_version != kEncodedFormat) {
    return absl::UnimplementedError(
        absl::StrCat("row log of format ", header.format_version, "; this program reads formats ",
                     kPackedFormat, " and ", kEncodedFormat,
                     ": use the version of Troupe that wrote it, or take another data directory"));
  }
  if (header.metadata_bytes > file.size() - sizeof(header)) {
    return absl::DataLossError("row log is cut off in its header");
  }
  absl::string_view strings(reinterpret_cast<const char*>(file.data()) + sizeof(header),
                            header.metadata_bytes);
  if (FileCheck(header, strings) != header.check) {
    return absl::DataLossError("the row log's header does not match its checksum");
  }
  LogMetadata metadata;
  metadata.stride_bytes = header.stride_bytes;
  metadata.num_blocks = header.num_blocks;
  metadata.has_priorities = header.has_priorities != 0;
  metadata.has_encoded_rows = header.format_version == kEncodedFormat;
  if (!TakeString(&strings, &metadata.run) || !TakeString(&strings, &metadata.table) ||
      !TakeString(&strings, &metadata.layout) || !strings.empty()) {
    return absl::DataLossError("the row log's metadata is malformed");
  }
  absl::StatusOr<LogGeometry> geometry = ComputeGeometry(metadata);
  if (!geometry.ok()) return geometry.status();
  if (file.size() < (may_be_cut ? geometry->times_offset : geometry->file_bytes)) {
    return absl::DataLossError(absl::StrCat("row log has ", file.size(),
                                            " bytes where its header says ", geometry->file_bytes));
  }
  return metadata;
}

LogCountsSlot MakeCountsSlot(const LogCounts& counts, uint64_t generation, uint32_t row_count,
                             uint64_t sequence) {
  LogCountsSlot slot = {counts, sequence, generation, row_count, 0};
  slot.check = Crc32c(0, &slot, offsetof(LogCountsSlot, check));
  return slot;
}

bool CountsSlotVerifies(const LogCountsSlot& slot) {
  const LogCountsSlot never_written = {};
  if (std::memcmp(&slot, &never_written, sizeof(slot)) == 0) return true;
  return slot.check == Crc32c(0, &slot, offsetof(LogCountsSlot, check));
}

constexpr int kSyncedBits = 48;

uint64_t EncodeSynced(uint64_t generation) {
  const uint64_t check = (Crc32c(0, &generation, sizeof(generation)) & 0xffff) | 1;
  return check << kSyncedBits | generation;
}

std::optional<uint64_t> DecodeSynced(uint64_t word) {
  const uint64_t generation = word & ((uint64_t{1} << kSyncedBits) - 1);
  return word == EncodeSynced(generation) ? std::optional(generation) : std::nullopt;
}

uint64_t SlotMask(uint32_t first_slot, uint32_t count) {
  if (count == 0) return 0;
  return (~uint64_t{0} >> (kRowsPerBlock - count)) << first_slot;
}

uint32_t CommitCheck(const BlockHeader& header, const CommitSlot& slot) {
  const uint64_t covered[] = {
      header.stream, header.first_row, header.generation,
      (uint64_t{header.follows} << 31 | slot.row_count) << 32 | slot.rows_crc32c};
  const uint32_t check = Crc32c(0, covered, sizeof(covered));
  return check == 0 ? 1 : check;
}

namespace {

bool IsUnused(const BlockHeader& header) {
  if (header.generation == kEvicted) return true;
  const BlockHeader zeros = {};
  return std::memcmp(&header, &zeros, sizeof(header)) == 0;
}

bool SlotVerifies(const BlockHeader& header, const CommitSlot& slot, const LogGeometry& geometry,
                  const uint8_t* place) {
  const uint32_t first_slot = header.first_row % kRowsPerBlock;
  if (slot.check != CommitCheck(header, slot) || slot.row_count < 1 ||
      slot.row_count > kRowsPerBlock - first_slot) {
    return false;
  }
  const std::optional<absl::string_view> rows =
      StoredRows(geometry, place, header.first_row, slot.row_count);
  return rows.has_value() && Crc32c(0, rows->data(), rows->size()) == slot.rows_crc32c;
}

}  // namespace

std::optional<absl::string_view> StoredRows(const LogGeometry& geometry, const uint8_t* place,
                                            uint64_t first_row, uint32_t count) {
  absl::string_view rows(reinterpret_cast<const char*>(place), geometry.block_bytes());
  if (geometry.rows.all_alike()) {
    return rows.substr(first_row % kRowsPerBlock * geometry.stride_bytes,
                       count * geometry.stride_bytes);
  }
  const std::optional<size_t> size = geometry.rows.FirstRows(rows, count);
  if (!size.has_value()) return std::nullopt;
  return rows.substr(0, *size);
}

BlockContents VerifyBlock(const BlockHeader& header, uint64_t block_index,
                          const LogGeometry& geometry, const uint8_t* place) {
  BlockContents contents;
  if (IsUnused(header)) return contents;
  const bool in_place = header.generation <= kMaxNumber && header.first_row <= kMaxNumber &&
                        (header.generation - 1) % geometry.num_blocks == block_index;
  CommitSlot slots[kCommitSlots];
  std::copy(std::begin(header.slots), std::end(header.slots), slots);
  std::sort(std::begin(slots), std::end(slots),
            [](const CommitSlot& a, const CommitSlot& b) { return a.row_count > b.row_count; });
  for (const CommitSlot& slot : slots) {
    if (slot.check == 0) continue;
    if (in_place && contents.committed.row_count == 0 &&
        SlotVerifies(header, slot, geometry, place)) {
      contents.committed = slot;
    } else if (contents.committed.row_count == 0 || slot.check != CommitCheck(header, slot)) {
      contents.damaged = true;
    }
  }
  const uint32_t first_slot = header.first_row % kRowsPerBlock;
  if (contents.committed.row_count == 0) return contents;
  absl::string_view rows =
      *StoredRows(geometry, place, header.first_row, contents.committed.row_count);
  for (uint32_t slot = first_slot; !rows.empty(); ++slot) {
    const bool is_final = IsFinal(ReadRowHeader(rows.data()).flags);
    contents.finals |= uint64_t{is_final} << slot;
    rows.remove_prefix(geometry.rows.First(rows));
  }
  return contents;
}

}  // namespace troupe
