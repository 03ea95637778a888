#include "common/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/layout.h"

namespace troupe {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors is little-endian");

constexpr char kMetadata[] = "__metadata__";
constexpr size_t kMaxAxes = 16;
constexpr std::pair<absl::string_view, proto::DType> kDTypes[] = {{"F32", proto::FLOAT32},
                                                                  {"F64", proto::FLOAT64},
                                                                  {"I32", proto::INT32},
                                                                  {"I64", proto::INT64},
                                                                  {"U8", proto::UINT8}};

absl::Status Invalid(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("safetensors: ", what));
}

absl::Status Invalid(absl::string_view tensor, absl::string_view what) {
  return Invalid(absl::StrCat("tensor '", tensor, "': ", what));
}

std::string DTypeName(proto::DType dtype) {
  for (const auto& [name, value] : kDTypes) {
    if (value == dtype) return std::string(name);
  }
  return "";
}

absl::StatusOr<proto::DType> ParseDType(const std::string& tensor, const json& field) {
  if (!field.is_string()) return Invalid(tensor, "its dtype is not a string");
  const std::string& text = field.get_ref<const std::string&>();
  for (const auto& [name, value] : kDTypes) {
    if (name == text) return value;
  }
  return Invalid(
      tensor, absl::StrCat("dtype '", text.substr(0, 32), "' is none of F32, F64, I32, I64, U8"));
}

// The product of `shape` and the element size; false if it does not fit.
bool SizeOf(proto::DType dtype, const std::vector<int64_t>& shape, int64_t& size_bytes) {
  size_bytes = ElementBytes(dtype);
  if (size_bytes == 0) return false;
  bool empty = false;
  for (const int64_t axis : shape) {
    if (axis < 0) return false;
    empty |= axis == 0;
    if (axis != 0 && __builtin_mul_overflow(size_bytes, axis, &size_bytes)) return false;
  }
  if (empty) size_bytes = 0;
  return true;
}

// The header's JSON, in which no object has a key twice.
absl::StatusOr<json> ParseHeader(absl::string_view text) {
  std::vector<std::set<std::string>> open;  // keys of each object that has begun
  std::string twice;
  const auto watch = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) open.emplace_back();
    if (event == json::parse_event_t::object_end) open.pop_back();
    if (event == json::parse_event_t::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!open.back().insert(key).second) twice = key;
    }
    return true;
  };
  json header = json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (header.is_discarded()) return Invalid("the header is not well-formed JSON");
  if (!header.is_object()) return Invalid("the header is not a JSON object");
  if (!twice.empty()) return Invalid(absl::StrCat("'", twice.substr(0, 256), "' is there twice"));
  return header;
}

absl::StatusOr<std::map<std::string, std::string>> ParseMetadata(const json& field) {
  if (!field.is_object()) return Invalid("__metadata__ is not a JSON object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : field.items()) {
    if (!value.is_string()) return Invalid(absl::StrCat("metadata '", key, "' is not a string"));
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

absl::StatusOr<std::vector<int64_t>> ParseIntegers(const std::string& tensor, absl::string_view key,
                                                   const json& field) {
  if (!field.is_array()) return Invalid(tensor, absl::StrCat(key, " is not an array"));
  if (field.size() > kMaxAxes) {
    return Invalid(tensor, absl::StrCat(key, " has ", field.size(), " numbers"));
  }
  std::vector<int64_t> numbers;
  for (const json& number : field) {
    if (!number.is_number_unsigned() || number.get<uint64_t>() > INT64_MAX) {
      return Invalid(tensor, absl::StrCat(key, " holds something that is no size"));
    }
    numbers.push_back(number.get<int64_t>());
  }
  return numbers;
}

absl::StatusOr<TensorView> ParseTensor(const std::string& name, const json& entry,
                                       absl::string_view data) {
  if (!entry.is_object()) return Invalid(name, "its entry is not a JSON object");
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!entry.contains(key)) return Invalid(name, absl::StrCat("has no ", key));
  }
  const absl::StatusOr<proto::DType> dtype = ParseDType(name, entry["dtype"]);
  if (!dtype.ok()) return dtype.status();
  absl::StatusOr<std::vector<int64_t>> shape = ParseIntegers(name, "shape", entry["shape"]);
  if (!shape.ok()) return shape.status();
  const absl::StatusOr<std::vector<int64_t>> offsets =
      ParseIntegers(name, "data_offsets", entry["data_offsets"]);
  if (!offsets.ok()) return offsets.status();
  if (offsets->size() != 2) return Invalid(name, "data_offsets are not two numbers");
  const int64_t begin = offsets->at(0), end = offsets->at(1);
  if (begin > end || end > static_cast<int64_t>(data.size())) {
    return Invalid(
        name, absl::StrCat("lies at [", begin, ", ", end, ") of ", data.size(), " data bytes"));
  }
  int64_t size_bytes = 0;
  if (!SizeOf(*dtype, *shape, size_bytes) || size_bytes != end - begin) {
    return Invalid(name, absl::StrCat(end - begin, " bytes are not ", DTypeName(*dtype), "[",
                                      absl::StrJoin(*shape, ","), "]"));
  }
  return TensorView{name, *dtype, *std::move(shape), data.substr(begin, end - begin)};
}

// The tensors must follow each other without gap or overlap, from the first byte to the last.
absl::Status CheckCover(const std::map<std::string, TensorView>& tensors, absl::string_view data) {
  std::vector<const TensorView*> sorted;
  sorted.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) sorted.push_back(&tensor);
  std::sort(sorted.begin(), sorted.end(), [](const TensorView* a, const TensorView* b) {
    return std::make_pair(a->bytes.data(), a->bytes.size()) <
           std::make_pair(b->bytes.data(), b->bytes.size());
  });
  const char* next = data.data();
  for (const TensorView* tensor : sorted) {
    if (tensor->bytes.data() != next) {
      return Invalid(tensor->name,
                     absl::StrCat("begins at byte ", tensor->bytes.data() - data.data(),
                                  ", the one before it ends at ", next - data.data()));
    }
    next += tensor->bytes.size();
  }
  if (next != data.data() + data.size()) {
    return Invalid(
        absl::StrCat("the tensors end at byte ", next - data.data(), " of ", data.size()));
  }
  return absl::OkStatus();
}

// Larger elements first, so that every tensor is aligned to its element; then by name.
std::vector<const TensorView*> FileOrder(const std::vector<TensorView>& tensors) {
  std::vector<const TensorView*> order;
  order.reserve(tensors.size());
  for (const TensorView& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    return std::make_pair(-ElementBytes(a->dtype), absl::string_view(a->name)) <
           std::make_pair(-ElementBytes(b->dtype), absl::string_view(b->name));
  });
  return order;
}

}  // namespace

std::string DescribeTensor(const TensorView& tensor) {
  return absl::StrCat("'", tensor.name, "' ", proto::DType_Name(tensor.dtype), "[",
                      absl::StrJoin(tensor.shape, ","), "]");
}

absl::StatusOr<Safetensors> Safetensors::Parse(absl::string_view image) {
  uint64_t header_bytes = 0;
  if (image.size() < sizeof(header_bytes)) {
    return Invalid(absl::StrCat(image.size(), " bytes are too short for a header"));
  }
  std::memcpy(&header_bytes, image.data(), sizeof(header_bytes));
  image.remove_prefix(sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes || header_bytes > image.size()) {
    return Invalid(absl::StrCat("a header of ", header_bytes, " bytes; ", image.size(),
                                " follow, at most ", kMaxHeaderBytes, " are allowed"));
  }
  const absl::StatusOr<json> header = ParseHeader(image.substr(0, header_bytes));
  if (!header.ok()) return header.status();
  const absl::string_view data = image.substr(header_bytes);
  Safetensors result;
  for (const auto& [name, entry] : header->items()) {
    if (name == kMetadata) {
      absl::StatusOr<std::map<std::string, std::string>> metadata = ParseMetadata(entry);
      if (!metadata.ok()) return metadata.status();
      result.metadata_ = *std::move(metadata);
      continue;
    }
    absl::StatusOr<TensorView> tensor = ParseTensor(name, entry, data);
    if (!tensor.ok()) return tensor.status();
    result.tensors_.emplace(name, *std::move(tensor));
  }
  if (absl::Status status = CheckCover(result.tensors_, data); !status.ok()) return status;
  return result;
}

absl::StatusOr<TensorView> Safetensors::Find(absl::string_view name, proto::DType dtype,
                                             const std::vector<int64_t>& shape) const {
  const TensorView wanted{std::string(name), dtype, shape, {}};
  const auto found = tensors_.find(wanted.name);
  if (found == tensors_.end()) {
    return Invalid(absl::StrCat("no tensor ", DescribeTensor(wanted)));
  }
  if (found->second.dtype != dtype || found->second.shape != shape) {
    return Invalid(absl::StrCat("tensor ", DescribeTensor(found->second), ", expected ",
                                DescribeTensor(wanted)));
  }
  return found->second;
}

absl::StatusOr<std::string> Safetensors::Metadata(absl::string_view key) const {
  const auto found = metadata_.find(std::string(key));
  if (found == metadata_.end()) return Invalid(absl::StrCat("no metadata '", key, "'"));
  return found->second;
}

absl::StatusOr<std::string> EncodeSafetensors(const std::vector<TensorView>& tensors,
                                              const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  const std::vector<const TensorView*> order = FileOrder(tensors);
  int64_t offset = 0;
  for (const TensorView* tensor : order) {
    int64_t size_bytes = 0;
    if (!SizeOf(tensor->dtype, tensor->shape, size_bytes) ||
        size_bytes != static_cast<int64_t>(tensor->bytes.size())) {
      return Invalid(
          absl::StrCat(tensor->bytes.size(), " bytes are not ", DescribeTensor(*tensor)));
    }
    if (tensor->name == kMetadata || header.contains(tensor->name)) {
      return Invalid(tensor->name, "is there twice");
    }
    header[tensor->name] = {{"dtype", DTypeName(tensor->dtype)},
                            {"shape", tensor->shape},
                            {"data_offsets", {offset, offset + size_bytes}}};
    offset += size_bytes;
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t header_bytes = text.size();
  if (header_bytes > Safetensors::kMaxHeaderBytes) {
    return Invalid(absl::StrCat("a header of ", header_bytes, " bytes"));
  }
  std::string image(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
  image.reserve(sizeof(header_bytes) + header_bytes + offset);
  image += text;
  for (const TensorView* tensor : order) image.append(tensor->bytes.data(), tensor->bytes.size());
  return image;
}

}  // namespace troupe
