#include "tests/unit/apps/tls_server.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include <chrono>
#include <cstdio>
#include <stdexcept>

namespace volley::test {
namespace {

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

Certificate make_certificate(EVP_PKEY* key) {
  Certificate certificate(X509_new(), X509_free);
  X509* x = certificate.get();
  X509_set_version(x, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
  X509_gmtime_adj(X509_getm_notBefore(x), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x), 3600);
  X509_set_pubkey(x, key);
  X509_NAME* name = X509_get_subject_name(x);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("localhost"),
                             -1, -1, 0);
  X509_set_issuer_name(x, name);
  X509_EXTENSION* names = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "DNS:localhost");
  X509_add_ext(x, names, -1);
  X509_EXTENSION_free(names);
  if (X509_sign(x, key, EVP_sha256()) == 0) throw std::runtime_error("cannot sign a certificate");
  return certificate;
}

}  // namespace

TlsServer::TlsServer(const std::string& body, const std::string& certificate_file) {
  const Key key(EVP_RSA_gen(2048), EVP_PKEY_free);
  const Certificate certificate = make_certificate(key.get());
  std::FILE* file = std::fopen(certificate_file.c_str(), "w");
  if (file == nullptr) throw std::runtime_error("cannot write the certificate");
  PEM_write_X509(file, certificate.get());
  std::fclose(file);
  server_ = std::make_unique<httplib::SSLServer>(certificate.get(), key.get());
  server_->Get(".*", [body](const httplib::Request&, httplib::Response& response) {
    response.set_content(body, "application/octet-stream");
  });
  port_ = server_->bind_to_any_port("127.0.0.1");
  thread_ = std::thread([this] { server_->listen_after_bind(); });
  while (!server_->is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TlsServer::~TlsServer() {
  server_->stop();
  thread_.join();
}

}  // namespace volley::test
