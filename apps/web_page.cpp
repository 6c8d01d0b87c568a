#include "apps/web_page.h"

#include <algorithm>
#include <optional>

#include "apps/download.h"
#include "apps/http_get.h"
#include "apps/verbs.h"

namespace volley::apps {
namespace {

std::string media_type_of(const httplib::Response& response) {
  std::string type = response.get_header_value("Content-Type");
  type.resize(std::min(type.find(';'), type.size()));
  while (!type.empty() && type.back() == ' ') type.pop_back();
  std::ranges::transform(type, type.begin(), [](unsigned char c) { return std::tolower(c); });
  return type;
}

// Throws Error for answers that are neither a page nor a redirect.
void check_status(const Url& url, int status) {
  if (status == 404 || status == 410)
    throw NotThere(url.text() + ": not there (" + std::to_string(status) + ")");
  if (status == 401 || status == 403) {
    throw Error(url.text() + ": access is refused (" + std::to_string(status) + ")",
                ErrorKind::kModelMissing);
  }
  if (status != 200) throw Error(url.text() + ": the server answers " + std::to_string(status));
}

}  // namespace

WebPage fetch_page(const WebPageRequest& request, const std::stop_token& stop) {
  WebPage page{.url = request.url};
  const httplib::Headers headers{{"Accept", request.accept}};
  for (int hop = 0; hop <= kMostRedirects; ++hop) {
    std::optional<std::string> location;
    const Url url = page.url;
    const HttpEnd end =
        http_get({.url = url,
                  .headers = headers,
                  .stop = stop,
                  .on_head =
                      [&](const httplib::Response& response) {
                        if (is_redirect(response.status)) {
                          location = response.get_header_value("Location");
                          return false;
                        }
                        check_status(url, response.status);
                        page.media_type = media_type_of(response);
                        return true;
                      },
                  .on_bytes =
                      [&](std::string_view bytes) {
                        page.body += bytes;
                        if (std::ssize(page.body) > request.max_bytes) {
                          throw Error(url.text() + ": is longer than " + byte_count(request.max_bytes));
                        }
                      }});
    if (end.is_stopped) throw Interrupted(url.text() + ": interrupted");
    if (!end.fault.empty()) throw Error(url.text() + ": " + end.fault);
    if (!location) return page;
    page.url = redirected(url, *location);
  }
  throw Error(request.url.text() + ": more than " + std::to_string(kMostRedirects) + " redirects");
}

}  // namespace volley::apps
