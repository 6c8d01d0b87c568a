// Which revision of a repository files are of.
#include "apps/repo_revision.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "apps/http_get.h"
#include "apps/verbs.h"
#include "core/base/error.h"
#include "core/io/atomic_file.h"

namespace volley::apps {

namespace fs = std::filesystem;

std::string commit_or_nothing(std::string_view text) {
  const bool is_commit = (text.size() == 40 || text.size() == 64) &&
                         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  return is_commit ? std::string(text) : "";
}

KeptRevision::KeptRevision(const std::string& folder) : path_((fs::path(folder) / ".revision").string()) {
  std::ifstream file(path_, std::ios::binary);
  std::string line;
  if (std::getline(file, line)) commit_ = commit_or_nothing(line);
}

void KeptRevision::keep(const std::string& commit) {
  AtomicFile file(path_);
  file.write(commit + "\n");
  file.commit();
  commit_ = commit;
}

void KeptRevision::forget() {
  std::error_code code;
  fs::remove(path_, code);
  if (code) throw Error(path_ + ": cannot remove: " + code.message());
  commit_.clear();
}

RevisionAnswer ask_revision(const RevisionRequest& request, const std::stop_token& stop) {
  httplib::Headers headers;
  if (!request.token.empty() && request.url.is_private())
    headers.emplace("Authorization", "Bearer " + request.token);
  Url url = request.url;
  RevisionAnswer answer;
  for (int hop = 0; hop <= kMostRedirects; ++hop) {
    std::string location;
    const HttpEnd end =
        http_get({.url = url,
                  .headers = headers,
                  .stop = stop,
                  .on_head =
                      [&](const httplib::Response& response) {
                        if (is_redirect(response.status)) location = response.get_header_value("Location");
                        answer = {.is_there = response.status == 200 || is_redirect(response.status),
                                  .commit = commit_or_nothing(response.get_header_value(kRevisionHeader))};
                        return false;
                      },
                  .on_bytes = [](std::string_view) {}});
    if (end.is_stopped) throw Interrupted(url.text() + ": interrupted");
    if (!end.fault.empty()) throw Error(url.text() + ": " + end.fault);
    if (location.empty() || !answer.commit.empty()) return answer;
    url = redirected(url, location);
    if (url.origin() != request.url.origin()) return answer;
  }
  throw Error(request.url.text() + ": more than " + std::to_string(kMostRedirects) + " redirects");
}

}  // namespace volley::apps
