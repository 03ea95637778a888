#ifndef TROUPE_COMMON_CONFIG_CHECKS_H_
#define TROUPE_COMMON_CONFIG_CHECKS_H_

#include <string>
#include <vector>

#include "google/protobuf/message.h"
#include "proto/config.pb.h"

namespace troupe {

// One line per value outside the range that proto/config.proto states for its field: path, value,
// range and unit.
std::vector<std::string> RangeFaults(const google::protobuf::Message& message);

// One line per rule between fields that does not hold, with the numbers.
std::vector<std::string> CrossFieldFaults(const proto::Config& config);
// Its part about the environment: adds a line to `faults` for each.
void CheckEnvironment(const proto::Config& config, std::vector<std::string>& faults);

}  // namespace troupe

#endif  // TROUPE_COMMON_CONFIG_CHECKS_H_
