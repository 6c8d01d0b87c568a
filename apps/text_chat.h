#pragma once

#include <optional>
#include <stop_token>
#include <string>

namespace volley::apps {

// Lines of standard input, as someone types them.
class LineReader {
 public:
  explicit LineReader(std::stop_token stop) : stop_(std::move(stop)) {}

  // The next line without its end; nothing at the end of the input, or when the program is to stop. Throws
  // Error when it cannot be read or a line is longer than 1 MiB.
  std::optional<std::string> next();

 private:
  std::stop_token stop_;
  std::string held_;
  bool is_at_end_ = false;
};

}  // namespace volley::apps
