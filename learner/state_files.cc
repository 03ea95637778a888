#include "learner/state_files.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"

namespace troupe {

absl::Status Restore(absl::string_view algorithm, absl::FunctionRef<absl::Status()> load) {
  try {
    const torch::NoGradGuard no_grad;
    return load();
  } catch (const std::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat("cannot restore ", algorithm, ": ", e.what()));
  }
}

at::Generator MakeGenerator(torch::Device device, uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(seed);
  return generator;
}

absl::StatusOr<StateFiles> EncodeState(const TensorFile& model, TensorFile optimizer,
                                       int64_t updates, const at::Generator& generator) {
  optimizer.Add("updates", torch::full({}, updates, torch::kInt64));
  TensorFile random;
  random.Add("generator", generator.get_state());
  StateFiles files;
  const std::pair<const char*, const TensorFile*> all[] = {
      {kModelFile, &model}, {kOptimizerFile, &optimizer}, {kRandomFile, &random}};
  for (const auto& [name, file] : all) {
    absl::StatusOr<std::string> image = file->Encode();
    if (!image.ok()) return image.status();
    files[name] = *std::move(image);
  }
  return files;
}

absl::StatusOr<Safetensors> ParseFile(const StateFiles& files, const std::string& file) {
  const auto found = files.find(file);
  if (found == files.end()) return InFile(file, absl::InvalidArgumentError("the file is missing"));
  absl::StatusOr<Safetensors> parsed = Safetensors::Parse(found->second);
  if (!parsed.ok()) return InFile(file, parsed.status());
  return parsed;
}

absl::Status InFile(const std::string& file, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", status.message()));
}

absl::StatusOr<int64_t> ReadUpdates(const Safetensors& optimizer) {
  const absl::StatusOr<torch::Tensor> updates = ReadTensor(optimizer, "updates", torch::kInt64, {});
  if (!updates.ok()) return InFile(kOptimizerFile, updates.status());
  return updates->item<int64_t>();
}

absl::Status LoadGenerator(const StateFiles& files, at::Generator& generator) {
  const absl::StatusOr<Safetensors> random = ParseFile(files, kRandomFile);
  if (!random.ok()) return random.status();
  const absl::StatusOr<torch::Tensor> state =
      ReadTensor(*random, "generator", torch::kUInt8, generator.get_state().sizes().vec());
  if (state.ok()) {
    generator.set_state(*state);
    return absl::OkStatus();
  }
  // That of another device: whatever is drawn from now on follows from it.
  const auto other = random->tensors().find("generator");
  if (other == random->tensors().end() || other->second.dtype != proto::UINT8) {
    return InFile(kRandomFile, state.status());
  }
  generator.set_current_seed(Crc32c(0, other->second.bytes.data(), other->second.bytes.size()));
  return absl::OkStatus();
}

}  // namespace troupe
