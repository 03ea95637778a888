#ifndef TROUPE_TESTS_INTEGRATION_SECURITY_CERTIFICATES_H_
#define TROUPE_TESTS_INTEGRATION_SECURITY_CERTIFICATES_H_

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

namespace troupe {

struct CertificateOptions {
  std::string common_name;
  std::string dns_name;  // empty: none
  // From now. Unit: s
  long valid_from = -3600;
  long valid_until = 3600;
};

// An authority that signs what it is asked to, good or bad, in the test's process.
class CertificateAuthority final {
 public:
  CertificateAuthority();

  // Writes ca.pem, cert.pem and key.pem, each at once, into `directory`, which is made if need be.
  void Issue(const CertificateOptions& options, const std::string& directory) const;

 private:
  using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
  using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

  Certificate Sign(const CertificateOptions& options, EVP_PKEY* key, X509* issuer) const;

  Key key_;
  Certificate certificate_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_INTEGRATION_SECURITY_CERTIFICATES_H_
