#ifndef TROUPE_COMMON_CREDENTIALS_H_
#define TROUPE_COMMON_CREDENTIALS_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/security/tls_certificate_provider.h"

namespace troupe {

// Is `target` (host:port, [v6]:port or unix:path) this machine, by its name alone?  Only
// "localhost" and literal loopback addresses are.
bool IsLoopback(absl::string_view target);

// How the connections of a process are made: in plaintext, or with mutual TLS, where both sides
// show a certificate of one authority.  A client holds the server to the host's name in its
// certificate; what a client may do is said by the common name in its own (replay_server/roles.h).
// Shared by all of them; thread-safe.
class Credentials final {
 public:
  // Within this machine alone, unless `anywhere`.
  static std::shared_ptr<const Credentials> Plaintext(bool anywhere = false);

  // With `directory`'s ca.pem, cert.pem (and those between it and the authority) and key.pem, which
  // are read again within some seconds after they have changed: new connections use the new ones,
  // those that stand stay.  NOT_FOUND and the like name the file.
  static absl::StatusOr<std::shared_ptr<const Credentials>> MutualTls(const std::string& directory);

  // Do both sides show certificates?
  bool authenticates() const { return certificates_ != nullptr; }
  // When the certificate runs out that is there now.  InfiniteFuture: there is none; the epoch: it
  // cannot be read.
  absl::Time CertificateExpiry() const;

  // FAILED_PRECONDITION: plaintext would leave this machine.
  absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ForChannel(
      absl::string_view target) const;
  absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ForServer(
      absl::string_view address) const;

 private:
  explicit Credentials(bool anywhere) : anywhere_(anywhere) {}

  absl::Status CheckPlaintext(absl::string_view target) const;

  const bool anywhere_;
  std::string certificate_file_;
  // None: plaintext.
  std::shared_ptr<grpc::experimental::CertificateProviderInterface> certificates_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_CREDENTIALS_H_
