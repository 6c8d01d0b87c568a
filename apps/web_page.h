#pragma once

#include <cstdint>
#include <stop_token>
#include <string>

#include "apps/url.h"

namespace volley::apps {

// A document of the web, whole in memory.
struct WebPage {
  Url url;                 // that gave it, behind redirects
  std::string media_type;  // of Content-Type, in lower case, without parameters
  std::string body;
};

struct WebPageRequest {
  Url url;
  std::string accept;     // the Accept header
  int64_t max_bytes = 0;  // more of them are an Error
};

// Follows redirects. Throws Error naming the address and the fault, NotThere for 404 and 410, and
// Interrupted.
WebPage fetch_page(const WebPageRequest& request, const std::stop_token& stop);

}  // namespace volley::apps
