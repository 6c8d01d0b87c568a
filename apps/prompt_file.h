#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace volley::apps {

// A line of a file of prompts, without white space around it; lines count from 1.
struct NumberedLine {
  int64_t number = 0;
  std::string_view text;
};

// The lines that hold something: empty ones and those that start with '#' are passed over.
std::vector<NumberedLine> numbered_lines(std::string_view text);

// Parses a line as JSON and hands it to `read`; returns what is wrong with it, in the words of the Error that
// `read` throws ("line: ..."), or nothing.
std::string fault_of_object(std::string_view line, const std::function<void(const nlohmann::json&)>& read);

// The text of a file of prompts, or of standard input for "-". Throws Error naming it, for one that is no
// text too: of its lines each would be at fault.
std::string read_prompt_text(const std::string& path);

// The same path in messages: "-" is the flag's.
std::string prompt_source(const std::string& path);

// One line of volley image's --prompt-file: a prompt, or a JSON object that says more.
struct PromptLine {
  int64_t line = 0;  // from 1
  std::string prompt;
  std::string class_name;
  std::string name;  // for file names
  std::optional<uint64_t> seed;
  std::optional<int64_t> count;
  std::string fault;  // not empty: what is wrong with the line
};

std::vector<PromptLine> parse_prompt_lines(std::string_view text);

// Reads the file, or standard input for "-". Throws Error naming it.
std::vector<PromptLine> read_prompt_file(const std::string& path);

}  // namespace volley::apps
