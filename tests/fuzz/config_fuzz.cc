// A configuration's text and, after zero bytes, `--set` words: one that is accepted prints as text
// that reads back to the same, and each of its tables can be completed.
#include "common/config.h"
#include "google/protobuf/util/message_differencer.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

constexpr size_t kMaxParts = 8;

void TestOne(absl::string_view input) {
  std::vector<std::string> sets = Parts(input, kMaxParts);
  const std::string text = std::move(sets.front());
  sets.erase(sets.begin());
  const absl::StatusOr<proto::Config> config = ParseConfig(text, "fuzz", sets);
  if (!config.ok()) {
    Require(absl::IsInvalidArgument(config.status()), "another code than INVALID_ARGUMENT");
    Require(!config.status().message().empty(), "refused without a word");
    return;
  }
  const std::string printed = PrintConfig(*config);
  const absl::StatusOr<proto::Config> again = ParseConfig(printed, "printed", {});
  Require(again.ok(), again.status(), "\n", printed);
  Require(google::protobuf::util::MessageDifferencer::Equals(*config, *again),
          "it reads back to another configuration:\n", printed);
  for (const proto::Table& table : config->tables()) {
    const absl::StatusOr<proto::Table> effective = EffectiveTable(*config, table.name());
    Require(effective.ok(), effective.status());
  }
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
