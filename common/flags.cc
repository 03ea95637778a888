#include "common/flags.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/nearest.h"

namespace troupe {
namespace {

std::vector<std::string> FlagNames() {
  std::vector<std::string> names = {"set", "help", "version"};
  for (const auto& [name, flag] : absl::GetAllFlags()) names.emplace_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

// Reads one flag after the other and gathers what is wrong.
class Parser final {
 public:
  explicit Parser(absl::Span<char* const> args) : args_(args) {}

  absl::StatusOr<CommandLine> Parse() {
    TakeEnvironment();
    while (next_ < args_.size()) ParseOne(args_[next_++]);
    if (faults_.empty()) return std::move(result_);
    return absl::InvalidArgumentError(absl::StrJoin(faults_, "\n"));
  }

 private:
  void TakeEnvironment() {
    for (const std::string& name : FlagNames()) {
      const std::string variable = absl::StrCat("TROUPE_", absl::AsciiStrToUpper(name));
      const char* const value = std::getenv(variable.c_str());
      if (value == nullptr || *value == '\0') continue;
      if (name == "set") {
        result_.sets = absl::StrSplit(value, absl::ByAnyChar(" \t\n"), absl::SkipEmpty());
      } else if (absl::CommandLineFlag* flag = absl::FindCommandLineFlag(name)) {
        ParseValue(*flag, absl::StrCat(variable, "="), value);
      }
    }
  }

  void ParseValue(absl::CommandLineFlag& flag, absl::string_view where, absl::string_view value) {
    std::string error;
    if (!flag.ParseFrom(value, &error)) {
      faults_.push_back(absl::StrCat(where, value, ": ", error));
    }
  }

  void ParseOne(absl::string_view word) {
    if (word == "-h") word = "--help";
    absl::string_view name = word;
    if (!absl::ConsumePrefix(&name, "--") || name.empty()) {
      faults_.push_back(absl::StrCat("'", word, "' is not a flag; flags begin with --"));
      return;
    }
    std::optional<std::string> value;
    if (const size_t equals = name.find('='); equals != name.npos) {
      value = std::string(name.substr(equals + 1));
      name = name.substr(0, equals);
    }
    if (name == "help" || name == "version") {
      (name == "help" ? result_.help : result_.version) = true;
    } else if (name == "set") {
      if (TakeValue(name, value)) result_.sets.push_back(*value);
    } else {
      SetFlag(name, value);
    }
  }

  void SetFlag(absl::string_view name, std::optional<std::string> value) {
    absl::CommandLineFlag* flag = absl::FindCommandLineFlag(name);
    absl::string_view positive = name;
    if (flag == nullptr && !value && absl::ConsumePrefix(&positive, "no")) {
      flag = absl::FindCommandLineFlag(positive);
      if (flag != nullptr && !flag->IsOfType<bool>()) flag = nullptr;
      value = "false";
    }
    if (flag == nullptr) {
      faults_.push_back(absl::StrCat("unknown flag --", name, "; the nearest is --",
                                     NearestName(name, FlagNames())));
      return;
    }
    if (flag->IsOfType<bool>() && !value) value = "true";
    if (TakeValue(name, value)) ParseValue(*flag, absl::StrCat("--", name, "="), *value);
  }

  // Takes the next word as the value if there is none yet.
  bool TakeValue(absl::string_view name, std::optional<std::string>& value) {
    if (!value && next_ < args_.size()) value = args_[next_++];
    if (!value) faults_.push_back(absl::StrCat("--", name, " needs a value"));
    return value.has_value();
  }

  const absl::Span<char* const> args_;
  size_t next_ = 0;
  CommandLine result_;
  std::vector<std::string> faults_;
};

}  // namespace

absl::StatusOr<CommandLine> ParseFlags(absl::Span<char* const> args) {
  return Parser(args).Parse();
}

std::string FlagsHelp(absl::string_view name, absl::string_view about) {
  std::string text = absl::StrCat(about, "\n\nUsage: ", name, " [flags]\n\nFlags:\n");
  std::vector<std::string> entries = {
      "  --set path=value\n      One setting on top of --config, such as "
      "--set learner.sac.gamma=0.98; may be given often.\n"};
  for (const auto& [flag_name, flag] : absl::GetAllFlags()) {
    std::string entry = absl::StrCat("  --", flag_name);
    const std::string fallback = flag->DefaultValue();
    if (!fallback.empty()) absl::StrAppend(&entry, " (default ", fallback, ")");
    absl::StrAppend(&entry, "\n      ", absl::StripAsciiWhitespace(flag->Help()), "\n");
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end());
  absl::StrAppend(&text, absl::StrJoin(entries, ""));
  absl::StrAppend(
      &text, "  --help, --version\n",
      "\nThe environment may set what the command line does not: TROUPE_NAME is --name, and "
      "TROUPE_SET\nholds settings with spaces between them.\n"
      "\nExit codes: 0 done or stopped by a signal, 1 failed, 2 wrong flags or "
      "configuration.\n");
  return text;
}

}  // namespace troupe
