#ifndef TROUPE_REPLAY_SERVER_ROLES_H_
#define TROUPE_REPLAY_SERVER_ROLES_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grpcpp/server_context.h"
#include "replay_server/calls.h"

namespace troupe {

// With mutual TLS the common name of a client's certificate is its role, "actor", "learner" or
// "operator"; roles.cc lists what each may call, an operator everything.
//
// PERMISSION_DENIED names role and method: the peer may not call `method`.  A method that is not
// listed is the operator's.  UNAUTHENTICATED: a peer without a certificate.
absl::Status CheckRole(const grpc::ServerContextBase& context, absl::string_view method);

// Who the other side is, as far as it shows.
Peer PeerOf(const grpc::ServerContextBase& context);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_ROLES_H_
