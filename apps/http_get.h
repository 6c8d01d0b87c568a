#pragma once

// For the files that speak HTTP only: includes httplib.
#include <httplib.h>

#include <functional>
#include <stop_token>
#include <string>
#include <string_view>

#include "apps/url.h"

namespace volley::apps {

inline constexpr int kMostRedirects = 10;

// One GET; redirects are not followed.
struct HttpGet {
  const Url& url;
  const httplib::Headers& headers;  // besides User-Agent; bytes are asked for as they are stored
  std::stop_token stop;
  // Called with the head of the answer. Whether its body is wanted.
  std::function<bool(const httplib::Response&)> on_head;
  std::function<void(std::string_view)> on_bytes;
};

struct HttpEnd {
  bool is_stopped = false;
  std::string fault;  // empty: all of the answer that was wanted came
};

// What the callbacks throw goes through, unless the stop was requested.
HttpEnd http_get(const HttpGet& get);

bool is_redirect(int status);

}  // namespace volley::apps
