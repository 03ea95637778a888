#include "common/credentials.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace troupe {
namespace {

namespace tls = grpc::experimental;

constexpr unsigned kSecondsBetweenReads = 2;

bool IsLoopbackV4(absl::string_view host) {
  const std::vector<absl::string_view> parts = absl::StrSplit(host, '.');
  if (parts.size() != 4 || parts[0] != "127") return false;
  return std::all_of(parts.begin(), parts.end(), [](absl::string_view part) {
    int value = 0;
    return absl::SimpleAtoi(part, &value) && value >= 0 && value <= 255;
  });
}

}  // namespace

bool IsLoopback(absl::string_view target) {
  if (absl::StartsWith(target, "unix:")) return true;
  const size_t colon = target.rfind(':');
  if (colon == absl::string_view::npos) return false;
  const absl::string_view host = target.substr(0, colon);
  return host == "localhost" || host == "[::1]" || IsLoopbackV4(host);
}

std::shared_ptr<const Credentials> Credentials::Plaintext(bool anywhere) {
  return absl::WrapUnique(new Credentials(anywhere));
}

absl::StatusOr<std::shared_ptr<const Credentials>> Credentials::MutualTls(
    const std::string& directory) {
  const std::string authority = absl::StrCat(directory, "/ca.pem");
  const std::string certificate = absl::StrCat(directory, "/cert.pem");
  const std::string key = absl::StrCat(directory, "/key.pem");
  // gRPC would say nothing, and no handshake would ever succeed.
  for (const std::string& file : {authority, certificate, key}) {
    if (access(file.c_str(), R_OK) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("--tls_dir: cannot read ", file));
    }
  }
  std::unique_ptr<Credentials> credentials(new Credentials(false));
  credentials->certificate_file_ = certificate;
  credentials->certificates_ = std::make_shared<tls::FileWatcherCertificateProvider>(
      key, certificate, authority, kSecondsBetweenReads);
  return credentials;
}

absl::Time Credentials::CertificateExpiry() const {
  if (certificates_ == nullptr) return absl::InfiniteFuture();
  const std::unique_ptr<BIO, decltype(&BIO_free)> file(BIO_new_file(certificate_file_.c_str(), "r"),
                                                       &BIO_free);
  if (file == nullptr) return absl::UnixEpoch();
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(
      PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr), &X509_free);
  std::tm end = {};
  if (certificate == nullptr || ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end) != 1) {
    return absl::UnixEpoch();
  }
  return absl::FromTM(end, absl::UTCTimeZone());
}

absl::Status Credentials::CheckPlaintext(absl::string_view target) const {
  if (anywhere_ || IsLoopback(target)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("'", target,
                   "' is not on this machine, and the connection would be plaintext: give "
                   "--tls_dir, or --insecure if the network is trusted"));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials::ForChannel(
    absl::string_view target) const {
  if (certificates_ == nullptr) {
    if (absl::Status status = CheckPlaintext(target); !status.ok()) return status;
    return grpc::InsecureChannelCredentials();
  }
  tls::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(certificates_);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_certificate_verifier(std::make_shared<tls::HostNameCertificateVerifier>());
  return tls::TlsCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> Credentials::ForServer(
    absl::string_view address) const {
  if (certificates_ == nullptr) {
    if (absl::Status status = CheckPlaintext(address); !status.ok()) return status;
    return grpc::InsecureServerCredentials();
  }
  tls::TlsServerCredentialsOptions options(certificates_);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return tls::TlsServerCredentials(options);
}

}  // namespace troupe
