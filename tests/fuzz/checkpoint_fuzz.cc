// A checkpoint's folder: the text of checkpoint.json, a zero byte, the bytes of its one file. After
// a leading '=' the text's digest is made to fit the file, or hardly any input would get past it.
#include <nlohmann/json.hpp>

#include "common/checkpoint.h"
#include "common/crc32c.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

constexpr char kFile[] = "model.safetensors";

struct Input {
  std::string marker;
  std::string file;
};

Input Read(absl::string_view text) {
  const bool fit = !text.empty() && text[0] == '=';
  if (fit) text.remove_prefix(1);
  std::vector<std::string> parts = Parts(text, 2);
  parts.resize(2);
  if (!fit) return {parts[0], parts[1]};
  nlohmann::json marker = nlohmann::json::parse(parts[0], nullptr, /*allow_exceptions=*/false);
  if (!marker.is_object() || !marker.contains("files") || !marker["files"].is_object()) {
    return {parts[0], parts[1]};
  }
  marker["files"][kFile] = {{"size", parts[1].size()},
                            {"crc32c", Crc32c(0, parts[1].data(), parts[1].size())}};
  return {marker.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), parts[1]};
}

void TestOne(absl::string_view text) {
  static const std::string directory = OwnPath("checkpoints");
  static const std::string folder = directory + "/000000005000";
  static const bool made = std::filesystem::create_directories(folder);
  Require(made, "cannot make a folder");
  const Input input = Read(text);
  WriteWhole(folder + "/checkpoint.json", input.marker);
  WriteWhole(folder + "/" + kFile, input.file);
  const auto found = CheckpointDirectory(directory, 1).ReadNewest();
  if (!found.ok()) {
    Require(absl::IsDataLoss(found.status()), found.status());
    return;
  }
  Require(found->path == folder && found->skipped.empty(), "it found another checkpoint");
  const Checkpoint& checkpoint = found->checkpoint;
  const auto file = checkpoint.files.find(kFile);
  Require(file == checkpoint.files.end() || file->second == input.file, "a file has other bytes");
  Require(checkpoint.updates >= 0, "the number of updates is negative");
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
