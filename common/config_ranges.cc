#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/config_checks.h"
#include "common/config_overrides.h"
#include "google/protobuf/descriptor.h"
#include "proto/options.pb.h"

namespace troupe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::FieldOptions;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Value of a number, from a singular field (index < 0) or an element of a repeated one.
double Number(const Message& message, const FieldDescriptor* field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool one = index < 0;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return one ? r.GetInt32(message, field) : r.GetRepeatedInt32(message, field, index);
    case FieldDescriptor::CPPTYPE_INT64:
      return static_cast<double>(one ? r.GetInt64(message, field)
                                     : r.GetRepeatedInt64(message, field, index));
    case FieldDescriptor::CPPTYPE_UINT32:
      return one ? r.GetUInt32(message, field) : r.GetRepeatedUInt32(message, field, index);
    case FieldDescriptor::CPPTYPE_UINT64:
      return static_cast<double>(one ? r.GetUInt64(message, field)
                                     : r.GetRepeatedUInt64(message, field, index));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return one ? r.GetDouble(message, field) : r.GetRepeatedDouble(message, field, index);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return one ? r.GetFloat(message, field) : r.GetRepeatedFloat(message, field, index);
    default:
      return 0;  // other types carry no range
  }
}

// Written with all its digits, unlike StrCat's six.
std::string Text(double value) {
  if (std::abs(value) < 1e15 && value == std::floor(value)) {
    return absl::StrCat(static_cast<int64_t>(value));
  }
  return absl::StrCat(value);
}

bool InRange(const FieldOptions& options, double value) {
  if (std::isnan(value)) return false;
  if (options.HasExtension(proto::min)) {
    const double min = options.GetExtension(proto::min);
    if (options.GetExtension(proto::min_excluded) ? value <= min : value < min) return false;
  }
  if (options.HasExtension(proto::max)) {
    const double max = options.GetExtension(proto::max);
    if (options.GetExtension(proto::max_excluded) ? value >= max : value > max) return false;
  }
  return true;
}

std::string RangeText(const FieldOptions& options) {
  const std::string min = Text(options.GetExtension(proto::min));
  const std::string max = Text(options.GetExtension(proto::max));
  const std::string unit =
      options.HasExtension(proto::unit) ? absl::StrCat(" ", options.GetExtension(proto::unit)) : "";
  if (!options.HasExtension(proto::min)) return absl::StrCat("must be a number", unit);
  if (options.GetExtension(proto::min_excluded)) {
    return absl::StrCat("must be above ", min, " and at most ", max, unit);
  }
  if (options.GetExtension(proto::max_excluded)) {
    return absl::StrCat("must be at least ", min, " and below ", max, unit);
  }
  return absl::StrCat("must be ", min, " to ", max, unit);
}

// Walks every field that is set, and gathers faults.
class RangeWalk final {
 public:
  std::vector<std::string> Walk(const Message& message) && {
    VisitMessage(message, "");
    return std::move(faults_);
  }

 private:
  void VisitMessage(const Message& message, const std::string& prefix) {
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      const std::string path = absl::StrCat(prefix, field->name());
      if (!field->is_repeated()) {
        VisitValue(message, field, -1, path);
        continue;
      }
      for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i) {
        VisitValue(message, field, i, absl::StrCat(path, "[", i, "]"));
      }
    }
  }

  void VisitValue(const Message& message, const FieldDescriptor* field, int index,
                  const std::string& path) {
    const Reflection& reflection = *message.GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        VisitMessage(index < 0 ? reflection.GetMessage(message, field)
                               : reflection.GetRepeatedMessage(message, field, index),
                     path + ".");
        return;
      case FieldDescriptor::CPPTYPE_ENUM:
        CheckEnum(*field, reflection.GetEnum(message, field)->number(), path);
        return;
      default: {
        const double value = Number(message, field, index);
        if (InRange(field->options(), value)) return;
        faults_.push_back(
            absl::StrCat(path, " = ", Text(value), ": ", RangeText(field->options())));
      }
    }
  }

  void CheckEnum(const FieldDescriptor& field, int number, const std::string& path) {
    if (number != 0) return;
    faults_.push_back(absl::StrCat(path, " = ", field.enum_type()->FindValueByNumber(0)->name(),
                                   ": must be one of ",
                                   absl::StrJoin(ValueNames(*field.enum_type()), ", ")));
  }

  std::vector<std::string> faults_;
};

}  // namespace

std::vector<std::string> RangeFaults(const Message& message) { return RangeWalk().Walk(message); }

}  // namespace troupe
