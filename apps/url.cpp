#include "apps/url.h"

#include <algorithm>
#include <charconv>

#include "core/base/error.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

[[noreturn]] void refuse(std::string_view text, const std::string& subject) {
  throw Error(subject + ": " + quote(text) + " is no address such as https://host/path", ErrorKind::kUsage);
}

// A path whose "." and ".." are followed, never above the root (RFC 3986, section 5.2.4).
std::string without_dots(const std::string& path) {
  const size_t query = std::min(path.find('?'), path.size());
  std::string kept;
  for (size_t begin = 1; begin <= query;) {
    const size_t end = std::min(path.find('/', begin), query);
    const std::string part = path.substr(begin, end - begin);
    const bool is_last = end == query;
    if (part == "..") kept.resize(kept.empty() ? 0 : kept.rfind('/'));
    if (part != "." && part != "..") {
      kept += "/" + part;
    } else if (is_last) {
      kept += "/";
    }
    begin = end + 1;
  }
  return kept + path.substr(query);
}

}  // namespace

std::string Url::origin() const {
  return scheme + "://" + host + ":" + std::to_string(port);
}

std::string Url::text() const {
  const bool is_usual = port == (scheme == "https" ? 443 : 80);
  return scheme + "://" + host + (is_usual ? "" : ":" + std::to_string(port)) + path;
}

bool Url::is_private() const {
  return scheme == "https" || host == "localhost" || host == "127.0.0.1" || host == "[::1]";
}

Url parse_url(std::string_view text, const std::string& subject) {
  // What stands in a request's lines must not end them.
  const bool is_plain = std::ranges::all_of(text, [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  const size_t colon = text.find("://");
  if (!is_plain || colon == std::string_view::npos) refuse(text, subject);
  Url url{.scheme = std::string(text.substr(0, colon))};
  std::ranges::transform(url.scheme, url.scheme.begin(), [](unsigned char c) { return std::tolower(c); });
  if (url.scheme != "http" && url.scheme != "https") refuse(text, subject);
  url.port = url.scheme == "https" ? 443 : 80;
  std::string_view rest = text.substr(colon + 3);
  const size_t slash = std::min(rest.find_first_of("/?#"), rest.size());
  std::string_view authority = rest.substr(0, slash);
  url.path = std::string(rest.substr(slash, rest.find('#') - slash));
  if (!url.path.starts_with('/')) url.path.insert(0, "/");
  // Not repeated: it may hold a password.
  if (authority.find('@') != std::string_view::npos)
    throw Error(subject + ": addresses with a user's name or password are not taken", ErrorKind::kUsage);
  const size_t bracket = authority.rfind(']');
  const size_t port = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (port != std::string_view::npos) {
    const std::string_view digits = authority.substr(port + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), url.port);
    if (error != std::errc() || end != digits.data() + digits.size() || url.port < 1 || url.port > 65535)
      refuse(text, subject);
    authority = authority.substr(0, port);
  }
  if (authority.empty()) refuse(text, subject);
  url.host = std::string(authority);
  std::ranges::transform(url.host, url.host.begin(), [](unsigned char c) { return std::tolower(c); });
  return url;
}

Url resolved(const Url& from, std::string_view reference, const std::string& subject) {
  if (reference.starts_with("//")) return parse_url(from.scheme + ":" + std::string(reference), subject);
  const size_t colon = reference.find("://");
  if (colon != std::string_view::npos && colon < reference.find_first_of("/?#")) {
    Url to = parse_url(reference, subject);
    if (from.scheme == "https" && to.scheme != "https")
      throw Error(subject + " to " + quote(reference) + " leaves TLS");
    return to;
  }
  const size_t end = std::min(from.path.find('?'), from.path.size());
  const std::string folder = from.path.substr(0, from.path.rfind('/', end) + 1);
  Url to =
      parse_url(from.origin() + (reference.starts_with('/') ? "" : folder) + std::string(reference), subject);
  to.path = without_dots(to.path);
  return to;
}

Url redirected(const Url& from, std::string_view location) {
  return resolved(from, location, from.text() + ": redirect");
}

}  // namespace volley::apps
