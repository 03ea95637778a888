#include "replay_server/calls.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace troupe {

absl::Status DrainingError() { return absl::UnavailableError("this shard is shutting down"); }

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

proto::CallDescription Call::Describe() {
  proto::CallDescription description;
  description.set_client(peer_.client);
  description.set_role(peer_.role);
  description.set_address(peer_.address);
  description.set_open_ms(absl::ToInt64Milliseconds(absl::Now() - opened_));
  DescribeWork(&description);
  return description;
}

absl::Status CallRegistry::Add(const std::shared_ptr<Call>& call) {
  absl::MutexLock lock(&mu_);
  if (draining_) return DrainingError();
  if (calls_.size() >= static_cast<size_t>(max_calls_)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(calls_.size(), " calls are open on this shard; max_streams is ", max_calls_));
  }
  calls_.emplace(call.get(), call);
  return absl::OkStatus();
}

void CallRegistry::Remove(const Call* call) {
  absl::MutexLock lock(&mu_);
  calls_.erase(call);
}

int CallRegistry::size() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(calls_.size());
}

std::vector<std::shared_ptr<Call>> CallRegistry::UnderWay() const {
  std::vector<std::shared_ptr<Call>> calls;
  for (const auto& [raw, weak] : calls_) {
    if (std::shared_ptr<Call> call = weak.lock()) calls.push_back(std::move(call));
  }
  return calls;
}

void CallRegistry::DrainAll() {
  std::vector<std::shared_ptr<Call>> calls;
  {
    absl::MutexLock lock(&mu_);
    draining_ = true;
    calls = UnderWay();
  }
  for (const std::shared_ptr<Call>& call : calls) call->Drain();
}

void CallRegistry::ForEach(absl::FunctionRef<void(Call&)> visit) const {
  std::vector<std::shared_ptr<Call>> calls;
  {
    absl::MutexLock lock(&mu_);
    calls = UnderWay();
  }
  for (const std::shared_ptr<Call>& call : calls) visit(*call);
}

bool CallRegistry::AwaitNone(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  auto none = [this] {
    mu_.AssertReaderHeld();
    return calls_.empty();
  };
  return mu_.AwaitWithTimeout(absl::Condition(&none), timeout);
}

}  // namespace troupe
