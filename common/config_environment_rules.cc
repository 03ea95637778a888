#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/config_checks.h"
#include "nlohmann/json.hpp"

namespace troupe {
namespace {

using Faults = std::vector<std::string>;

void CheckIntervals(const proto::Environment& environment, Faults& faults) {
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  const google::protobuf::Reflection& reflection = *environment.GetReflection();
  reflection.ListFields(environment, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    if (field->message_type() != proto::Interval::descriptor()) continue;
    const auto& interval =
        static_cast<const proto::Interval&>(reflection.GetMessage(environment, field));
    if (interval.has_low() && interval.has_high() && interval.low() <= interval.high()) continue;
    faults.push_back(absl::StrCat("environment.", field->name(), " = {",
                                  interval.ShortDebugString(),
                                  "}: must have low and high, low at most high"));
  }
}

// An environment in Python takes its keywords as JSON, and none of those that are built in.
void CheckGymnasium(const proto::Config& config, Faults& faults) {
  const proto::Environment& environment = config.environment();
  if (!environment.has_gymnasium()) return;
  if (environment.gymnasium().vector() && config.learner().has_ppo() &&
      config.learner().ppo().max_policy_lag() == 0) {
    faults.push_back(
        "environment.gymnasium.vector steps its environments all at once, but with "
        "learner.ppo.max_policy_lag = 0 each waits when its unroll is full: set the lag to 1");
  }
  const std::string& kwargs = environment.gymnasium().kwargs_json();
  if (!nlohmann::json::parse(kwargs, nullptr, /*allow_exceptions=*/false).is_object()) {
    faults.push_back(absl::StrCat("environment.gymnasium.kwargs_json = '", kwargs,
                                  "': must be a JSON object, such as {\"max_speed\": 3}"));
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  environment.GetReflection()->ListFields(environment, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    const int number = field->number();
    if (number == proto::Environment::kIdFieldNumber ||
        number == proto::Environment::kGymnasiumFieldNumber ||
        number == proto::Environment::kMaxEpisodeStepsFieldNumber) {
      continue;
    }
    faults.push_back(absl::StrCat("environment.", field->name(),
                                  " is for built-in environments; with environment.gymnasium "
                                  "keywords go into kwargs_json"));
  }
}

}  // namespace

void CheckEnvironment(const proto::Config& config, std::vector<std::string>& faults) {
  if (config.environment().id().empty()) faults.push_back("environment.id is empty");
  CheckIntervals(config.environment(), faults);
  CheckGymnasium(config, faults);
}

}  // namespace troupe
