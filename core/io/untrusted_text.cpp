#include "core/io/untrusted_text.h"

#include <cstdint>

namespace volley {
namespace {

// Length of the well-formed UTF-8 sequence that `text` begins with, or 0.
// Ref: Unicode 15, table 3-7.
size_t utf8_sequence(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0u; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned first = byte(0);
  if (text.empty()) return 0;
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const unsigned low = first == 0xe0 ? 0xa0 : 0x80;
    const unsigned high = first == 0xed ? 0x9f : 0xbf;
    return byte(1) >= low && byte(1) <= high && continues(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const unsigned low = first == 0xf0 ? 0x90 : 0x80;
    const unsigned high = first == 0xf4 ? 0x8f : 0xbf;
    return byte(1) >= low && byte(1) <= high && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::string printable(std::string_view text, size_t limit) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string line;
  for (size_t i = 0; i < text.size();) {
    if (line.size() >= limit) return line + "...";
    const auto byte = static_cast<uint8_t>(text[i]);
    const size_t length = utf8_sequence(text.substr(i));
    // U+0080..U+009F and U+2028/9 end a line or steer a terminal, too.
    const bool control = byte < 0x20 || byte == 0x7f ||
                         (byte == 0xc2 && length == 2 && (text[i + 1] & 0xe0) == 0x80) ||
                         (length == 3 && (text.substr(i, 3) == "\u2028" || text.substr(i, 3) == "\u2029"));
    if (length == 0 || control) {
      line += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15u]};
      ++i;
    } else {
      line += text.substr(i, length);
      i += length;
    }
  }
  return line;
}

std::string quote(std::string_view text) {
  std::string line = "'";
  return line.append(printable(text, 100)).append("'");
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_sequence(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace volley
