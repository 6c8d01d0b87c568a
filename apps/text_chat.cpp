#include "apps/text_chat.h"

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "apps/typed_input.h"
#include "core/base/error.h"

namespace volley::apps {
namespace {

constexpr size_t kMaxLine = size_t{1} << 20;

}  // namespace

std::optional<std::string> LineReader::next(const std::stop_token& stop) {
  while (true) {
    const size_t end = held_.find('\n');
    if (end != std::string::npos || (is_at_end_ && !held_.empty())) {
      std::string line = held_.substr(0, end);
      held_.erase(0, end == std::string::npos ? end : end + 1);
      if (line.ends_with('\r')) line.pop_back();
      return line;
    }
    if (is_at_end_ || stop.stop_requested()) return std::nullopt;
    if (held_.size() > kMaxLine) throw Error("standard input: a line of more than 1 MiB");
    std::array<char, 4096> block{};
    const ssize_t count = read_typed(stop, block);
    if (count < 0) throw Error("standard input: cannot read: " + std::generic_category().message(errno));
    if (count == 0 && !stop.stop_requested()) is_at_end_ = true;
    held_.append(block.data(), static_cast<size_t>(count));
  }
}

}  // namespace volley::apps
