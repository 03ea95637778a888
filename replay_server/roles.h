#ifndef TROUPE_REPLAY_SERVER_ROLES_H_
#define TROUPE_REPLAY_SERVER_ROLES_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grpcpp/server_context.h"

namespace troupe {

// Who may call what, with mutual TLS: the common name of a client's certificate is its role,
// "actor", "learner" or "operator".  An operator may call everything.
struct MethodRoles {
  absl::string_view method;  // such as "Append"
  absl::Span<const absl::string_view> roles;
};

// Of every method of both services.
absl::Span<const MethodRoles> AllMethodRoles();

// PERMISSION_DENIED names role and method: the peer may not call `method`.  A method that is not
// listed is the operator's.  UNAUTHENTICATED: a peer without a certificate.
absl::Status CheckRole(const grpc::ServerContextBase& context, absl::string_view method);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_ROLES_H_
