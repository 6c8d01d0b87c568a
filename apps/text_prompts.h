#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace volley::apps {

// One line of volley text's --prompt-file: a prompt, or a JSON object with prompt, system, seed.
struct TextLine {
  int64_t line = 0;  // from 1
  std::string prompt;
  std::string system;
  std::optional<uint64_t> seed;
  std::string fault;  // not empty: what is wrong with the line
};

// The lines that hold something: empty ones and those that start with '#' are passed over.
std::vector<TextLine> parse_text_lines(std::string_view text);

}  // namespace volley::apps
