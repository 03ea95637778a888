// troupe: what an operator asks of a cluster that runs, and of policies that leave it.
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/program.h"
#include "deploy/operator/backup.h"
#include "deploy/operator/drain.h"
#include "deploy/operator/evaluate.h"
#include "deploy/operator/python.h"
#include "deploy/operator/status.h"

ABSL_FLAG(bool, json, false, "status: print JSON.");
ABSL_FLAG(absl::Duration, interval, absl::Seconds(2), "status: what rates are taken over.");
ABSL_FLAG(absl::Duration, timeout, absl::Seconds(5),
          "status: how long a shard may take to answer.");
ABSL_FLAG(std::string, name, "",
          "backup: shard I makes NAME-I below its replay_server.backup_dir; default: the time.");
ABSL_FLAG(std::string, output, "",
          "backup: a new folder to move them to, as shard-I, where the shards' directories can be "
          "reached from here.");
ABSL_FLAG(std::string, shard, "", "drain: the shard's number in the configuration, or address.");
ABSL_FLAG(bool, undo, false, "drain: take writers again.");
ABSL_FLAG(absl::Duration, wait, absl::Seconds(60), "drain: how long to wait for its writers.");

namespace troupe {
namespace {

constexpr char kUsage[] =
    "Usage: troupe COMMAND --config FILE [--set PATH=VALUE]... [--tls_dir D] [FLAG]...\n"
    "\n"
    "  status    who is connected, rows, rates, lag, and who waits for whom; --json\n"
    "  backup    every shard copies what it holds while it goes on; --name NAME, --output D\n"
    "  evaluate  plays episodes with the newest policy, or with a checkpoint's: --checkpoint D\n"
    "  drain     turns a shard's writers away until it can be stopped without loss; --shard N\n"
    "\n"
    "       troupe COMMAND RUN_OR_CHECKPOINT... [FLAG]...    (in Python; COMMAND --help)\n"
    "\n"
    "  export    writes the policy as ONNX or TorchScript; --format, -o FILE\n"
    "  card      packs it with a model card, for the Hugging Face hub; -o FOLDER, --video\n"
    "  play      renders episodes; -o FILE.mp4 or .gif, --episodes N\n"
    "  plot      draws return against steps, of several runs with their spread; -o FILE.png\n"
    "\n"
    "The configuration names the shards; --set shards=host:port,host:port does, too.  With mutual\n"
    "TLS an operator's certificate may do all of this.  troupe COMMAND --help lists the flags.\n"
    "Exit codes: 0 done, 1 failed, 2 wrong use.\n";

absl::Status Status(const Program& program) {
  const StatusOptions options{.interval = absl::GetFlag(FLAGS_interval),
                              .timeout = absl::GetFlag(FLAGS_timeout),
                              .json = absl::GetFlag(FLAGS_json)};
  if (options.interval <= absl::ZeroDuration() || options.timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--interval and --timeout must be above 0, such as 2s");
  }
  return RunStatus(program, options);
}

absl::Status Backup(const Program& program) {
  return RunBackup(program,
                   {.name = absl::GetFlag(FLAGS_name), .output = absl::GetFlag(FLAGS_output)});
}

absl::Status Drain(const Program& program) {
  const std::string shard = absl::GetFlag(FLAGS_shard);
  if (shard.empty()) return absl::InvalidArgumentError("--shard is not set: which one?");
  return RunDrain(
      program,
      {.shard = shard, .undo = absl::GetFlag(FLAGS_undo), .patience = absl::GetFlag(FLAGS_wait)});
}

struct Command {
  const char* name;
  const char* about;
  absl::Status (*run)(const Program& program);
};

constexpr Command kCommands[] = {
    {"status", "Says who is connected to the shards, what they hold and who waits for whom.",
     Status},
    {"backup", "Has every shard copy what it holds into a new directory.", Backup},
    {"drain", "Turns a shard's writers away until it can be stopped without loss.", Drain}};

int Main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h" || name == "help") {
    std::fputs(kUsage, stdout);
    return kExitOk;
  }
  if (name == "--version") {
    return RunProgram({"troupe", ""}, argc, argv, [](Program&) { return absl::OkStatus(); });
  }
  if (name == "evaluate") return BecomeEvaluator({argv + 2, argv + argc});
  if (IsPythons(name)) return BecomePython({argv + 1, argv + argc});
  // Operators want figures, not a program's diary; a later --log_level counts.  The environment of
  // a container may hold another program's port.
  std::string quiet = "--log_level=warning", unmeasured = "--metrics_port=-1";
  std::vector<char*> words = {argv[0], quiet.data(), unmeasured.data()};
  if (argc > 2) words.insert(words.end(), argv + 2, argv + argc);
  for (const Command& command : kCommands) {
    if (name != command.name) continue;
    return RunProgram({absl::StrCat("troupe ", command.name), command.about},
                      static_cast<int>(words.size()), words.data(), command.run);
  }
  std::fprintf(stderr, "troupe: %s\n%s",
               name.empty() ? "which command?" : absl::StrCat("no command '", name, "'").c_str(),
               kUsage);
  return kExitUsage;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
