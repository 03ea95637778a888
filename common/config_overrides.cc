#include "common/config_overrides.h"

#include <cmath>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/nearest.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"

namespace troupe {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

// One word taken apart: "tables[0].name+=x" is {tables, 0} {name}, append, "x".
struct PathStep {
  std::string name;
  std::optional<int> index;
};
struct Override {
  std::vector<PathStep> steps;
  bool append = false;
  std::string value;
};

absl::StatusOr<PathStep> ParseStep(absl::string_view text) {
  const size_t bracket = text.find('[');
  PathStep step{std::string(text.substr(0, bracket)), std::nullopt};
  if (bracket == text.npos) return step;
  absl::string_view inside = text.substr(bracket + 1);
  int index = 0;
  if (!absl::ConsumeSuffix(&inside, "]") || !absl::SimpleAtoi(inside, &index) || index < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is no element, write ", step.name, "[0]"));
  }
  step.index = index;
  return step;
}

absl::StatusOr<Override> ParseOverride(absl::string_view word) {
  const size_t equals = word.find('=');
  if (equals == word.npos || equals == 0) {
    return absl::InvalidArgumentError("no '=', write path=value");
  }
  Override result;
  absl::string_view path = word.substr(0, equals);
  result.value = std::string(word.substr(equals + 1));
  result.append = absl::ConsumeSuffix(&path, "+");
  for (const absl::string_view text : absl::StrSplit(path, '.')) {
    absl::StatusOr<PathStep> step = ParseStep(text);
    if (!step.ok()) return step.status();
    result.steps.push_back(*std::move(step));
  }
  return result;
}

// What a value of this field looks like, for messages.
std::string Expected(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT:
      return "a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return absl::StrCat("one of ", absl::StrJoin(ValueNames(*field.enum_type()), ", "));
    case FieldDescriptor::CPPTYPE_STRING:
      return "a string";
    default:
      return absl::StrCat("a whole number that fits ", field.cpp_type_name());
  }
}

bool IsInteger(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64:
      return true;
    default:
      return false;
  }
}

// The value as text format has it: 1e6 is welcome where a whole number is wanted.
std::string AsTextFormat(const FieldDescriptor& field, absl::string_view value) {
  double number = 0;
  if (IsInteger(field) && value.find_first_of("eE.") != value.npos &&
      absl::SimpleAtod(value, &number) && number == std::floor(number) &&
      std::abs(number) < 9.2e18) {
    return absl::StrCat(static_cast<int64_t>(number));
  }
  return std::string(value);
}

// No text of the parser is wanted on stderr.
class SilentCollector final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int, int, const std::string&) override {}
  void AddWarning(int, int, const std::string&) override {}
};

// Sets a singular field, or adds to a repeated one.
absl::Status PutValue(const FieldDescriptor& field, absl::string_view value, Message& message) {
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    const std::string text(value);
    if (field.is_repeated()) {
      message.GetReflection()->AddString(&message, &field, text);
    } else {
      message.GetReflection()->SetString(&message, &field, text);
    }
    return absl::OkStatus();
  }
  SilentCollector silent;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&silent);
  if (parser.ParseFieldValueFromString(AsTextFormat(field, value), &field, &message)) {
    return absl::OkStatus();
  }
  std::string hint;
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
    hint = absl::StrCat("; the nearest is ",
                        NearestName(absl::AsciiStrToUpper(value), ValueNames(*field.enum_type())));
  }
  return absl::InvalidArgumentError(absl::StrCat("'", value, "' is not ", Expected(field), hint));
}

// Sets element `index` of a repeated field: the value is added at the end and moved there.
absl::Status PutElement(const FieldDescriptor& field, int index, absl::string_view value,
                        Message& message) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const int size = reflection.FieldSize(message, &field);
  if (index > size) {
    return absl::InvalidArgumentError(absl::StrCat(field.name(), " has ", size, " elements"));
  }
  if (absl::Status status = PutValue(field, value, message); !status.ok()) return status;
  if (index < size) {
    reflection.SwapElements(&message, &field, index, size);
    reflection.RemoveLast(&message, &field);
  }
  return absl::OkStatus();
}

absl::Status SetLeaf(const FieldDescriptor& field, const PathStep& step, const Override& word,
                     Message& message) {
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return absl::InvalidArgumentError(
        absl::StrCat(field.name(), " has fields of its own, set one of: ",
                     absl::StrJoin(FieldNames(*field.message_type()), ", ")));
  }
  if (!field.is_repeated()) {
    if (step.index || word.append) {
      return absl::InvalidArgumentError(absl::StrCat(field.name(), " is not a list"));
    }
    message.GetReflection()->ClearField(&message, &field);
    return PutValue(field, word.value, message);
  }
  if (step.index) return PutElement(field, *step.index, word.value, message);
  if (!word.append) message.GetReflection()->ClearField(&message, &field);
  for (const absl::string_view value : absl::StrSplit(word.value, ',', absl::SkipEmpty())) {
    if (absl::Status status = PutValue(field, value, message); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// The message that a step inside the path leads to; made if it is not there yet.
absl::StatusOr<Message*> Descend(const FieldDescriptor& field, const PathStep& step,
                                 Message& message) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
    return absl::InvalidArgumentError(absl::StrCat(field.name(), " has no fields of its own"));
  }
  if (!field.is_repeated()) {
    if (step.index) return absl::InvalidArgumentError(absl::StrCat(field.name(), " is no list"));
    return reflection.MutableMessage(&message, &field);
  }
  const int size = reflection.FieldSize(message, &field);
  if (!step.index && size > 1) {
    return absl::InvalidArgumentError(absl::StrCat(field.name(), " has ", size, " elements, write ",
                                                   field.name(), "[0] to [", size - 1, "]"));
  }
  const int index = step.index.value_or(0);
  if (index > size) {
    return absl::InvalidArgumentError(absl::StrCat(field.name(), " has ", size, " elements"));
  }
  if (index == size) return reflection.AddMessage(&message, &field);
  return reflection.MutableRepeatedMessage(&message, &field, index);
}

absl::Status Apply(const Override& word, Message& root) {
  Message* message = &root;
  for (size_t i = 0; i < word.steps.size(); ++i) {
    const PathStep& step = word.steps[i];
    const google::protobuf::Descriptor& descriptor = *message->GetDescriptor();
    const FieldDescriptor* field = descriptor.FindFieldByName(step.name);
    if (field == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(descriptor.name(), " has no field '", step.name, "'; the nearest is ",
                       NearestName(step.name, FieldNames(descriptor))));
    }
    if (i + 1 == word.steps.size()) return SetLeaf(*field, step, word, *message);
    const absl::StatusOr<Message*> next = Descend(*field, step, *message);
    if (!next.ok()) return next.status();
    message = *next;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyOverride(absl::string_view word, Message& message) {
  const absl::StatusOr<Override> parsed = ParseOverride(word);
  const absl::Status status = parsed.ok() ? Apply(*parsed, message) : parsed.status();
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("--set ", word, ": ", status.message()));
}

std::vector<std::string> FieldNames(const google::protobuf::Descriptor& descriptor) {
  std::vector<std::string> names;
  names.reserve(descriptor.field_count());
  for (int i = 0; i < descriptor.field_count(); ++i) {
    names.emplace_back(descriptor.field(i)->name());
  }
  return names;
}

std::vector<std::string> ValueNames(const EnumDescriptor& descriptor) {
  std::vector<std::string> names;
  for (int i = 0; i < descriptor.value_count(); ++i) {
    if (descriptor.value(i)->number() != 0) names.emplace_back(descriptor.value(i)->name());
  }
  return names;
}

}  // namespace troupe
