#pragma once

#include <httplib.h>

#include <memory>
#include <string>
#include <thread>

namespace volley::test {

// A server behind TLS with a certificate of its own making, for the name localhost.
class TlsServer {
 public:
  // Serves `body` at every path; the certificate is written to `certificate_file`.
  TlsServer(const std::string& body, const std::string& certificate_file);
  ~TlsServer();

  int port() const { return port_; }

 private:
  std::unique_ptr<httplib::SSLServer> server_;
  int port_ = 0;
  std::thread thread_;
};

}  // namespace volley::test
