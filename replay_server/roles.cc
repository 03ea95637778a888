#include "replay_server/roles.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"

namespace troupe {
namespace {

struct MethodRoles {
  absl::string_view method;
  absl::Span<const absl::string_view> roles;  // besides the operator
};

constexpr absl::string_view kOperator = "operator";
constexpr absl::string_view kActor[] = {"actor"};
constexpr absl::string_view kLearner[] = {"learner"};
constexpr absl::string_view kActorAndLearner[] = {"actor", "learner"};

constexpr MethodRoles kMethodRoles[] = {
    {"Append", kActor},   {"Sample", kLearner},         {"UpdatePriorities", kLearner},
    {"Follow", kLearner}, {"RequestUnrolls", kLearner}, {"Describe", kLearner},
    {"Backup", {}},       {"Publish", kLearner},        {"Subscribe", kActorAndLearner}};

bool MayCall(absl::string_view role, absl::string_view method) {
  if (role == kOperator) return true;
  const auto* const found =
      std::find_if(std::begin(kMethodRoles), std::end(kMethodRoles),
                   [&](const MethodRoles& entry) { return entry.method == method; });
  return found != std::end(kMethodRoles) &&
         std::find(found->roles.begin(), found->roles.end(), role) != found->roles.end();
}

}  // namespace

absl::Status CheckRole(const grpc::ServerContextBase& context, absl::string_view method) {
  const std::shared_ptr<const grpc::AuthContext> peer = context.auth_context();
  if (peer == nullptr || !peer->IsPeerAuthenticated()) {
    return absl::UnauthenticatedError(absl::StrCat(method, " needs a certificate"));
  }
  std::vector<std::string> names;
  for (const grpc::string_ref& name : peer->FindPropertyValues("x509_common_name")) {
    names.emplace_back(name.data(), name.size());
  }
  if (names.size() == 1 && MayCall(names[0], method)) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("role '", absl::StrJoin(names, ","), "' may not call ", method));
}

}  // namespace troupe
