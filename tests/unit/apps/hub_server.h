#pragma once

#include <httplib.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace volley::test {

// What a server was asked.
struct SeenRequest {
  std::string path;
  std::string token;  // the Authorization header
  std::string range;
  std::string if_range;
  std::string accept;
};

// A file as a host of large files serves it.
struct HostedFile {
  std::string body;
  std::string etag = "\"one\"";
  size_t claimed_size = 0;        // instead of its true one
  int64_t ends_after = -1;        // bytes after which the connection is lost; negative: never
  bool ignores_if_range = false;  // sends the piece asked for, of whatever contents
  bool waits = false;             // after those bytes, until the client goes away
  int status = 200;               // another one: no body
  std::string type = "application/octet-stream";
  std::string linked_etag;  // X-Linked-ETag; empty: none
  std::string commit;       // X-Repo-Commit; empty: none
  std::string location;     // Location, of a status that redirects
};

// What the hub and its host answer.
struct HubSettings {
  HostedFile file;
  std::string linked_etag;  // X-Linked-ETag of the redirect; empty: none
  int64_t linked_size = 0;  // 0: not sent
  int status = 302;         // of the hub's answer; 200: it sends the file itself
  std::string location;     // empty: the host
  // By path, sent by the hub itself; with any of them, all else is 404.
  std::map<std::string, HostedFile> files;
};

// The hub and the host it redirects to, on this machine.
class HubServer {
 public:
  HubServer();
  ~HubServer();

  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(hub_port_); }
  // Of the one file of the host.
  std::string host_address() const { return "http://localhost:" + std::to_string(host_port_) + "/blob?x=1"; }
  std::vector<SeenRequest> hub_requests() const { return copy(hub_requests_); }
  std::vector<SeenRequest> host_requests() const { return copy(host_requests_); }

  // For the requests that come from now on.
  void set(HubSettings settings) {
    const std::lock_guard lock(mutex_);
    settings_ = std::move(settings);
  }

 private:
  std::vector<SeenRequest> copy(const std::vector<SeenRequest>& requests) const {
    const std::lock_guard lock(mutex_);
    return requests;
  }
  HubSettings settings() const {
    const std::lock_guard lock(mutex_);
    return settings_;
  }
  void serve(const HostedFile& file, const httplib::Request& request, httplib::Response& response);
  void record(std::vector<SeenRequest>& requests, const httplib::Request& request);

  mutable std::mutex mutex_;
  HubSettings settings_;
  std::vector<SeenRequest> hub_requests_, host_requests_;
  std::atomic<bool> stopping_ = false;
  httplib::Server hub_, host_;
  int hub_port_ = 0, host_port_ = 0;
  std::thread hub_thread_, host_thread_;
};

}  // namespace volley::test
