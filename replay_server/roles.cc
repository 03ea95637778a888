#include "replay_server/roles.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
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

constexpr MethodRoles kMethodRoles[] = {{"Append", kActor},
                                        {"Sample", kLearner},
                                        {"UpdatePriorities", kLearner},
                                        {"Follow", kLearner},
                                        {"RequestUnrolls", kLearner},
                                        {"Describe", kLearner},
                                        {"Identify", kActorAndLearner},
                                        {"Backup", {}},
                                        {"Drain", {}},
                                        {"Publish", kLearner},
                                        {"Subscribe", kActorAndLearner}};

// Longer names are cut.
constexpr size_t kMaxClientBytes = 128;

// Of the peer's certificate; several names are no role.
std::string RoleOf(const grpc::AuthContext& peer) {
  std::vector<std::string> names;
  for (const grpc::string_ref& name : peer.FindPropertyValues("x509_common_name")) {
    names.emplace_back(name.data(), name.size());
  }
  return absl::StrJoin(names, ",");
}

// What clients put before gRPC's own user agent (common/channel.cc).
std::string ClientOf(const grpc::ServerContextBase& context) {
  const auto found = context.client_metadata().find("user-agent");
  if (found == context.client_metadata().end()) return "";
  absl::string_view agent(found->second.data(), found->second.size());
  agent = agent.substr(0, std::min(agent.find(' '), kMaxClientBytes));
  if (absl::StartsWith(agent, "grpc")) return "";
  std::string client(agent);
  for (char& c : client) {
    if (!absl::ascii_isgraph(c)) c = '?';
  }
  return client;
}

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
  const std::string role = RoleOf(*peer);
  if (MayCall(role, method)) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("role '", role, "' may not call ", method));
}

Peer PeerOf(const grpc::ServerContextBase& context) {
  const std::shared_ptr<const grpc::AuthContext> peer = context.auth_context();
  return {.client = ClientOf(context),
          .role = peer != nullptr ? RoleOf(*peer) : "",
          .address = context.peer()};
}

}  // namespace troupe
