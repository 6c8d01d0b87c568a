// One HTTP request. Ref: RFC 9110.
#include "apps/http_get.h"

#include <openssl/x509.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <sstream>

#include "core/base/version.h"

namespace volley::apps {
namespace {

constexpr time_t kConnectSeconds = 20, kSilenceSeconds = 60;

// Whether OpenSSL finds a certificate of an authority on this machine: in a file, or in folders.
bool has_authorities() {
  const auto place = [](const char* variable, const char* fallback) {
    const char* named = std::getenv(variable);
    return std::filesystem::path(named ? named : fallback);
  };
  std::error_code ignored;
  const auto file = place(X509_get_default_cert_file_env(), X509_get_default_cert_file());
  if (std::filesystem::exists(file, ignored) && !std::filesystem::is_empty(file, ignored)) return true;
  // Folders, with colons between them.
  std::istringstream folders(place(X509_get_default_cert_dir_env(), X509_get_default_cert_dir()).string());
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (std::filesystem::directory_iterator(folder, ignored) != std::filesystem::directory_iterator())
      return true;
  }
  return false;
}

std::string error_text(httplib::Error error) {
  switch (error) {
    case httplib::Error::Connection:
    case httplib::Error::ConnectionTimeout:
      return "cannot connect";
    case httplib::Error::Read:
    case httplib::Error::Write:
      return "the connection is lost";
    case httplib::Error::SSLConnection:
      return "cannot connect by TLS";
    case httplib::Error::SSLLoadingCerts:
      return "cannot load the certificates to check the server by";
    case httplib::Error::SSLServerVerification:
      if (!has_authorities()) {
        return "no certificates to check the server by are on this machine; the package ca-certificates "
               "has them, SSL_CERT_FILE names others";
      }
      return "the server's certificate is not to be trusted";
    default:
      return "failed (" + httplib::to_string(error) + ")";
  }
}

}  // namespace

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

HttpEnd http_get(const HttpGet& get) {
  httplib::Client client(get.url.origin());
  client.set_follow_location(false);
  client.set_decompress(false);
  client.set_keep_alive(false);
  client.set_connection_timeout(kConnectSeconds);
  client.set_read_timeout(kSilenceSeconds);
  httplib::Headers headers = get.headers;
  headers.emplace("User-Agent", "volley/" + std::string(version()));
  // Bytes are counted and hashed as they are stored.
  headers.emplace("Accept-Encoding", "identity");
  const std::stop_callback stopper(get.stop, [&client] { client.stop(); });
  std::exception_ptr failure;  // httplib knows no exceptions of its callers
  bool is_wanted = true;
  const auto guarded = [&](auto call) {
    try {
      return !get.stop.stop_requested() && call();
    } catch (...) {
      failure = std::current_exception();
      return false;
    }
  };
  const auto result = client.Get(
      get.url.path, headers,
      [&](const httplib::Response& response) {
        return guarded([&] {
          is_wanted = get.on_head(response);
          return is_wanted;  // the body of anything else is of no interest
        });
      },
      [&](const char* data, size_t size) {
        return guarded([&] {
          get.on_bytes({data, size});
          return true;
        });
      });
  if (get.stop.stop_requested()) return {.is_stopped = true};
  if (failure) std::rethrow_exception(failure);
  return {.fault = result || !is_wanted ? "" : error_text(result.error())};
}

}  // namespace volley::apps
