#include "text/text_stream.h"

#include <algorithm>

namespace volley::text {

std::string StopFilter::push(std::string_view text) {
  if (is_stopped_) return {};
  for (const char byte : text) {
    held_ += byte;
    size_t longest = 0;
    for (const std::string& stop : stops_) {
      if (held_.ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest == 0) continue;
    is_stopped_ = true;
    held_.resize(held_.size() - longest);
    return std::exchange(held_, {});
  }
  // The longest end of the text that is the beginning of a stop text stays.
  size_t kept = 0;
  for (const std::string& stop : stops_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > kept; --length) {
      if (held_.ends_with(std::string_view(stop).substr(0, length))) kept = length;
    }
  }
  std::string certain = held_.substr(0, held_.size() - kept);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopFilter::finish() {
  return std::exchange(held_, {});
}

}  // namespace volley::text
