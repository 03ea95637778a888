#ifndef TROUPE_COMMON_CONFIG_OVERRIDES_H_
#define TROUPE_COMMON_CONFIG_OVERRIDES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace troupe {

// Applies one "path=value" or "path+=value" (common/config.h has the forms) by reflection.
// INVALID_ARGUMENT: one line with the word, what is wrong, and the nearest known name.
absl::Status ApplyOverride(absl::string_view word, google::protobuf::Message& message);

// Names of the fields of a message, and of the values of an enum (without 0, which means "not
// set").
std::vector<std::string> FieldNames(const google::protobuf::Descriptor& descriptor);
std::vector<std::string> ValueNames(const google::protobuf::EnumDescriptor& descriptor);

}  // namespace troupe

#endif  // TROUPE_COMMON_CONFIG_OVERRIDES_H_
