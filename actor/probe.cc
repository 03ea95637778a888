#include "actor/probe.h"

#include <cmath>
#include <fstream>
#include <iostream>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "actor/env.h"
#include "nlohmann/json.hpp"

namespace troupe {
namespace {

void AppendNumber(double x, std::string* out) {
  if (std::isnan(x)) {
    out->append("NaN");
  } else if (std::isinf(x)) {
    out->append(x > 0 ? "Infinity" : "-Infinity");
  } else {
    absl::StrAppendFormat(out, "%.17g", x);
  }
}

// "observation":[...]
std::string ObservationField(absl::Span<const double> observation) {
  std::string text = "\"observation\":[";
  for (size_t i = 0; i < observation.size(); ++i) {
    if (i > 0) text.push_back(',');
    AppendNumber(observation[i], &text);
  }
  return text + "]";
}

std::string StepLine(absl::Span<const double> observation, const StepResult& result) {
  std::string text = absl::StrCat("{", ObservationField(observation), ",\"reward\":");
  AppendNumber(result.reward, &text);
  return absl::StrCat(text, ",\"terminated\":", result.terminated ? "true" : "false",
                      ",\"truncated\":", result.truncated ? "true" : "false", "}\n");
}

absl::StatusOr<std::vector<double>> ParseJsonNumbers(absl::string_view line) {
  const auto json = nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
  if (!json.is_array()) return absl::InvalidArgumentError("not a JSON array");
  std::vector<double> numbers;
  for (const auto& element : json) {
    if (!element.is_number()) {
      return absl::InvalidArgumentError(absl::StrCat("not a number: ", element.dump()));
    }
    numbers.push_back(element.get<double>());
  }
  return numbers;
}

absl::StatusOr<std::vector<double>> ParseNumbers(absl::string_view line) {
  if (absl::StartsWith(line, "[")) return ParseJsonNumbers(line);
  std::vector<double> numbers;
  for (const auto word : absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty())) {
    if (!absl::SimpleAtod(word, &numbers.emplace_back())) {
      return absl::InvalidArgumentError(absl::StrCat("not a number: ", word));
    }
  }
  return numbers;
}

absl::Status CheckAction(const EnvSpec& spec, absl::Span<const double> action) {
  if (static_cast<int64_t>(action.size()) != spec.action_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "an action of ", spec.id, " has ", spec.action_size, " numbers, got ", action.size()));
  }
  for (size_t i = 0; i < action.size(); ++i) {
    const double a = action[i];
    if (!std::isfinite(a)) return absl::InvalidArgumentError(absl::StrCat("not finite: ", a));
    if (spec.num_choices.empty()) continue;
    const int64_t n = spec.num_choices[i];
    if (a != std::floor(a) || a < 0 || a >= n) {
      return absl::InvalidArgumentError(
          absl::StrCat("an action of ", spec.id, " is one of 0 to ", n - 1, ", got ", a));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<double>>> ReadActions(const std::string& path,
                                                             const EnvSpec& spec) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read actions file ", path));
  std::vector<std::vector<double>> actions;
  std::string text;
  for (int number = 1; std::getline(file, text); ++number) {
    const absl::string_view line = absl::StripAsciiWhitespace(text);
    if (line.empty()) continue;
    absl::StatusOr<std::vector<double>> action = ParseNumbers(line);
    const absl::Status status = action.ok() ? CheckAction(spec, *action) : action.status();
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": ", status.message()));
    }
    actions.push_back(*std::move(action));
  }
  if (file.bad()) return absl::DataLossError(absl::StrCat("cannot read actions file ", path));
  return actions;
}

}  // namespace

absl::Status RunProbe(const ProbeOptions& options) {
  auto made = MakeEnv(options.environment, options.asset_dir);
  if (!made.ok()) return made.status();
  Env& env = **made;
  auto actions = ReadActions(options.actions_path, env.spec());
  if (!actions.ok()) return actions.status();

  std::ostream& out = *options.output;
  std::vector<double> observation(env.spec().observation_size);
  uint64_t seed = options.seed;
  const auto reset = [&] {
    env.Reset(seed++, absl::MakeSpan(observation));
    out << "{" << ObservationField(observation) << "}\n";
  };
  if (options.state.has_value()) {
    absl::Status status = env.ResetToState(*options.state, absl::MakeSpan(observation));
    if (!status.ok()) return status;
    out << "{" << ObservationField(observation) << "}\n";
  } else {
    reset();
  }
  bool ended = false;
  for (const std::vector<double>& action : *actions) {
    if (ended && !options.continue_after_end) break;
    if (ended) reset();
    const StepResult result = env.Step(action, absl::MakeSpan(observation));
    out << StepLine(observation, result);
    ended = result.terminated || result.truncated;
  }
  out.flush();
  return out ? absl::OkStatus() : absl::UnavailableError("cannot write the probe's output");
}

}  // namespace troupe
