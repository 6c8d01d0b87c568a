#pragma once

#include <string>
#include <string_view>

namespace volley::apps {

// An address of the web, in parts.
struct Url {
  std::string scheme;  // "http" or "https"
  std::string host;    // as it stands, with brackets around IPv6
  int port = 0;
  std::string path;  // with the query, starts with a slash

  // What a token belongs to: "https://host:443".
  std::string origin() const;
  std::string text() const;
  // A connection that nobody on the way can read: TLS, or this machine's own loopback.
  bool is_private() const;
};

// Throws Error kUsage "<subject>: ...".
Url parse_url(std::string_view text, const std::string& subject);
// What a reference out of the document at `from` means: an address of its own, or a path, from the root or
// from the document's folder (RFC 3986, section 5.2). Throws Error "<subject>: ...", also where it leaves
// TLS.
Url resolved(const Url& from, std::string_view reference, const std::string& subject);
// Where a redirect leads: an address of its own, or a path on the same host. Throws Error.
Url redirected(const Url& from, std::string_view location);

}  // namespace volley::apps
