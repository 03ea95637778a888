#include "tests/integration/security/certificates.h"

#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

void AddExtension(int id, const std::string& value, X509* issuer, X509* certificate) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str());
  EXPECT_NE(extension, nullptr) << value;
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

template <typename Write>
void WritePem(const std::string& path, const Write& write) {
  const std::string temporary = path + ".new";
  std::FILE* file = std::fopen(temporary.c_str(), "w");
  ASSERT_NE(file, nullptr) << path;
  EXPECT_EQ(write(file), 1);
  std::fclose(file);
  std::filesystem::rename(temporary, path);
}

}  // namespace

CertificateAuthority::CertificateAuthority()
    : key_(EVP_EC_gen("P-256"), EVP_PKEY_free), certificate_(nullptr, X509_free) {
  certificate_ = Sign({.common_name = "authority"}, key_.get(), nullptr);
}

CertificateAuthority::Certificate CertificateAuthority::Sign(const CertificateOptions& options,
                                                             EVP_PKEY* key, X509* issuer) const {
  static std::atomic<long> serial{1};  // atomic: no two certificates have the same
  Certificate certificate(X509_new(), X509_free);
  X509* const x = certificate.get();
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
  X509_gmtime_adj(X509_getm_notBefore(x), options.valid_from);
  X509_gmtime_adj(X509_getm_notAfter(x), options.valid_until);
  X509_set_pubkey(x, key);
  X509_NAME* const name = X509_get_subject_name(x);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(options.common_name.c_str()),
                             -1, -1, 0);
  X509_set_issuer_name(x, issuer == nullptr ? name : X509_get_subject_name(issuer));
  const std::string constraints = issuer == nullptr ? "critical,CA:TRUE" : "CA:FALSE";
  AddExtension(NID_basic_constraints, constraints, issuer == nullptr ? x : issuer, x);
  if (!options.dns_name.empty()) {
    AddExtension(NID_subject_alt_name, absl::StrCat("DNS:", options.dns_name), issuer, x);
  }
  EXPECT_GT(X509_sign(x, key_.get(), EVP_sha256()), 0);
  return certificate;
}

void CertificateAuthority::Issue(const CertificateOptions& options,
                                 const std::string& directory) const {
  std::filesystem::create_directories(directory);
  const Key key(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const Certificate certificate = Sign(options, key.get(), certificate_.get());
  WritePem(directory + "/ca.pem",
           [&](std::FILE* file) { return PEM_write_X509(file, certificate_.get()); });
  WritePem(directory + "/key.pem", [&](std::FILE* file) {
    return PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
  WritePem(directory + "/cert.pem",
           [&](std::FILE* file) { return PEM_write_X509(file, certificate.get()); });
}

}  // namespace troupe
