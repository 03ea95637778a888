#include "actor/gymnasium/env_spec.h"

#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace troupe {
namespace {

using nlohmann::json;

int64_t NumElements(const ObservationColumn& column) {
  int64_t elements = 1;
  for (const int64_t axis : column.shape) elements *= axis;
  return elements;
}

// [[name, shape], ...]
std::vector<ObservationColumn> Columns(const json& list, int64_t* num_elements) {
  std::vector<ObservationColumn> columns;
  for (const json& entry : list) {
    columns.push_back(
        {.name = entry.at(0).get<std::string>(), .shape = entry.at(1).get<std::vector<int64_t>>()});
    *num_elements += NumElements(columns.back());
  }
  return columns;
}

// Numbers, and null for an infinite one.
std::vector<double> Bounds(const json& list, double infinity) {
  std::vector<double> bounds;
  for (const json& bound : list) {
    bounds.push_back(bound.is_null() ? infinity : bound.get<double>());
  }
  return bounds;
}

EnvSpec Read(const std::string& id, const json& said) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  EnvSpec spec{.id = id};
  spec.columns = Columns(said.at("columns"), &spec.observation_size);
  spec.images = Columns(said.at("images"), &spec.image_bytes);
  spec.max_episode_steps = said.at("max_episode_steps").get<int64_t>();
  const json& action = said.at("action");
  if (action.contains("choices")) {
    spec.num_choices = action.at("choices").get<std::vector<int64_t>>();
    spec.action_size = static_cast<int64_t>(spec.num_choices.size());
  } else {
    spec.action_low = Bounds(action.at("low"), -kInfinity);
    spec.action_high = Bounds(action.at("high"), kInfinity);
    spec.action_size = static_cast<int64_t>(spec.action_low.size());
  }
  return spec;
}

}  // namespace

absl::StatusOr<EnvSpec> ParseEnvSpec(const std::string& id, const std::string& text) {
  try {
    EnvSpec spec = Read(id, json::parse(text));
    if (spec.action_size == 0 || spec.observation_size + spec.image_bytes == 0) {
      return absl::InvalidArgumentError(absl::StrCat(id, " has no actions or no observations"));
    }
    return spec;
  } catch (const json::exception& e) {
    return absl::InvalidArgumentError(
        absl::StrCat("what Python said of ", id, " cannot be read: ", e.what()));
  }
}

}  // namespace troupe
