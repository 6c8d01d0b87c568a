#pragma once

#include <optional>
#include <stop_token>
#include <string>

namespace volley::apps {

// Lines of standard input, as someone types them.
class LineReader {
 public:
  // The next line without its end; nothing at the end of the input, or when `stop` asks. Throws Error when it
  // cannot be read or a line is longer than 1 MiB.
  std::optional<std::string> next(const std::stop_token& stop);

 private:
  std::string held_;
  bool is_at_end_ = false;
};

}  // namespace volley::apps
