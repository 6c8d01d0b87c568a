#include "tests/unit/apps/hub_server.h"

#include <algorithm>
#include <chrono>

namespace volley::test {

HubServer::HubServer() {
  hub_.Get(".*", [this](const httplib::Request& request, httplib::Response& response) {
    record(hub_requests_, request);
    const HubSettings now = settings();
    if (!now.files.empty()) {
      const auto found = now.files.find(request.path);
      if (found != now.files.end()) return serve(found->second, request, response);
      response.status = 404;
      return;
    }
    if (now.status == 200) return serve(now.file, request, response);
    response.status = now.status;
    if (now.status != 302) return;
    response.set_header("Location", now.location.empty() ? host_address() : now.location);
    if (!now.linked_etag.empty()) response.set_header("X-Linked-ETag", "\"" + now.linked_etag + "\"");
    if (now.linked_size > 0) response.set_header("X-Linked-Size", std::to_string(now.linked_size));
  });
  host_.Get("/blob", [this](const httplib::Request& request, httplib::Response& response) {
    record(host_requests_, request);
    serve(settings().file, request, response);
  });
  hub_port_ = hub_.bind_to_any_port("127.0.0.1");
  host_port_ = host_.bind_to_any_port("127.0.0.1");
  hub_thread_ = std::thread([this] { hub_.listen_after_bind(); });
  host_thread_ = std::thread([this] { host_.listen_after_bind(); });
  while (!hub_.is_running() || !host_.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

HubServer::~HubServer() {
  stopping_ = true;
  hub_.stop();
  host_.stop();
  hub_thread_.join();
  host_thread_.join();
}

void HubServer::record(std::vector<SeenRequest>& requests, const httplib::Request& request) {
  const std::lock_guard lock(mutex_);
  requests.push_back({.path = request.path,
                      .token = request.get_header_value("Authorization"),
                      .range = request.get_header_value("Range"),
                      .if_range = request.get_header_value("If-Range"),
                      .accept = request.get_header_value("Accept")});
}

void HubServer::serve(const HostedFile& file, const httplib::Request& request, httplib::Response& response) {
  response.status = file.status;
  if (!file.commit.empty()) response.set_header("X-Repo-Commit", file.commit);
  if (!file.location.empty()) response.set_header("Location", file.location);
  if (file.status != 200) return;
  if (!file.linked_etag.empty()) response.set_header("X-Linked-ETag", "\"" + file.linked_etag + "\"");
  size_t start = 0;
  const std::string range = request.get_header_value("Range");
  const bool is_same = request.get_header_value("If-Range") == file.etag || file.ignores_if_range;
  if (range.starts_with("bytes=") && is_same) start = std::stoul(range.substr(6));
  const_cast<httplib::Request&>(request).ranges.clear();  // answered here, not by the library
  response.set_header("ETag", file.etag);
  if (start > 0 && start >= file.body.size()) {
    response.status = 416;
    response.set_header("Content-Range", "bytes */" + std::to_string(file.body.size()));
    return;
  }
  if (start > 0) {
    response.status = 206;
    response.set_header("Content-Range", "bytes " + std::to_string(start) + "-" +
                                             std::to_string(file.body.size() - 1) + "/" +
                                             std::to_string(file.body.size()));
  }
  const std::string rest = file.body.substr(start);
  response.set_content_provider(
      file.claimed_size > 0 ? file.claimed_size : rest.size(), file.type,
      [this, rest, ends_after = file.ends_after, waits = file.waits](size_t offset, size_t length,
                                                                     httplib::DataSink& sink) {
        const size_t limit = ends_after < 0 ? rest.size() : static_cast<size_t>(ends_after);
        if (offset >= limit) {
          while (waits && !stopping_ && sink.is_writable())
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
          return false;
        }
        sink.write(rest.data() + offset, std::min({length, limit - offset, size_t{16384}}));
        return true;
      });
}

}  // namespace volley::test
