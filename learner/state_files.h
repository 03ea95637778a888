#ifndef TROUPE_LEARNER_STATE_FILES_H_
#define TROUPE_LEARNER_STATE_FILES_H_

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/safetensors.h"
#include "common/tensor_file.h"

namespace troupe {

// The files of a checkpoint that every algorithm writes; Algorithm::Save and Load.
using StateFiles = std::map<std::string, std::string>;

inline constexpr char kModelFile[] = "model.safetensors";
inline constexpr char kOptimizerFile[] = "optimizer_state.safetensors";
inline constexpr char kRandomFile[] = "rng_state.safetensors";

// What `load` returns, which runs without gradients; what it throws as INVALID_ARGUMENT that names
// the algorithm.
absl::Status Restore(absl::string_view algorithm, absl::FunctionRef<absl::Status()> load);

at::Generator MakeGenerator(torch::Device device, uint64_t seed);

// The optimizer's file gets `updates`, the third file the state of `generator`.
absl::StatusOr<StateFiles> EncodeState(const TensorFile& model, TensorFile optimizer,
                                       int64_t updates, const at::Generator& generator);

// `file` of `files`, parsed; the tensors point into `files`.  INVALID_ARGUMENT: it is missing, or
// no safetensors.
absl::StatusOr<Safetensors> ParseFile(const StateFiles& files, const std::string& file);
// `status` with the file's name before its message.
absl::Status InFile(const std::string& file, const absl::Status& status);
absl::StatusOr<int64_t> ReadUpdates(const Safetensors& optimizer);
absl::Status LoadGenerator(const StateFiles& files, at::Generator& generator);

}  // namespace troupe

#endif  // TROUPE_LEARNER_STATE_FILES_H_
