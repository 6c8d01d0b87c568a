#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace volley::apps {

// One line of --prompt-file: a prompt, or a JSON object that says more.
struct PromptLine {
  int64_t line = 0;  // from 1
  std::string prompt;
  std::string class_name;
  std::string name;  // for file names
  std::optional<uint64_t> seed;
  std::optional<int64_t> count;
  std::string fault;  // not empty: what is wrong with the line
};

// The lines that hold something: empty ones and those that start with '#' are passed over.
std::vector<PromptLine> parse_prompt_lines(std::string_view text);

// Reads the file, or standard input for "-". Throws Error naming it.
std::vector<PromptLine> read_prompt_file(const std::string& path);

}  // namespace volley::apps
