#include "apps/prompt_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "core/base/error.h"
#include "core/io/byte_reader.h"
#include "core/io/json.h"
#include "core/io/mapped_file.h"
#include "core/io/untrusted_text.h"
#include "image/image_request.h"

namespace volley::apps {
namespace {

constexpr size_t kMaxInput = size_t{64} << 20;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

// Part of a file name that stays in its folder.
bool is_plain_name(std::string_view name) {
  return !name.empty() && name.front() != '.' && name.size() <= 200 &&
         std::ranges::none_of(name, [](char c) { return c == '/' || static_cast<unsigned char>(c) < 0x20; });
}

void read_object(const nlohmann::json& json, PromptLine& line) {
  const std::array<std::string_view, 5> known{"prompt", "class", "seed", "name", "count"};
  const JsonFields fields(json, "line");
  for (const auto& [key, value] : json.items()) {
    if (std::ranges::find(known, key) == known.end()) {
      throw Error("line: no key " + quote(key) + "; known are prompt, class, seed, name, count");
    }
  }
  line.prompt = fields.text_or("prompt", "");
  line.class_name = fields.text_or("class", "");
  line.name = fields.text_or("name", "");
  if (fields.has("seed")) line.seed = image::read_seed(fields);
  if (fields.has("count")) line.count = fields.integer("count", {1, image::kMaxCount});
  if (line.prompt.empty() == line.class_name.empty()) {
    throw Error("line: expected either key 'prompt' or key 'class'");
  }
  if (!line.name.empty() && !is_plain_name(line.name)) {
    throw Error("line: key 'name': " + quote(line.name) + " is no part of a file name");
  }
}

PromptLine parse_line(const NumberedLine& from) {
  PromptLine line{.line = from.number};
  if (!is_valid_utf8(from.text)) {
    line.fault = "is not UTF-8";
  } else if (!from.text.starts_with("{")) {
    line.prompt = from.text;
  } else {
    line.fault = fault_of_object(from.text, [&](const nlohmann::json& json) { read_object(json, line); });
  }
  return line;
}

std::string read_stream(int descriptor, const std::string& subject) {
  std::string text;
  std::array<char, 65536> block{};
  while (true) {
    const ssize_t count = ::read(descriptor, block.data(), block.size());
    if (count == 0) return text;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error(subject + ": cannot read: " + std::generic_category().message(errno));
    text.append(block.data(), static_cast<size_t>(count));
    if (text.size() > kMaxInput) throw Error(subject + ": more than 64 MiB of prompts");
  }
}

// What a shell puts in place of <(command).
bool is_pipe(const std::string& path) {
  std::error_code code;
  return std::filesystem::is_fifo(path, code);
}

std::string read_pipe(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw Error(path + ": cannot open: " + std::generic_category().message(errno));
  try {
    std::string text = read_stream(descriptor, path);
    ::close(descriptor);
    return text;
  } catch (...) {
    ::close(descriptor);
    throw;
  }
}

}  // namespace

std::string fault_of_object(std::string_view line, const std::function<void(const nlohmann::json&)>& read) {
  const auto json = parse_json(line);
  if (!json.ok()) return json.fault().message;
  try {
    read(json.value());
  } catch (const Error& error) {
    constexpr std::string_view kSubject = "line: ";
    std::string_view fault = error.what();
    if (fault.starts_with(kSubject)) fault.remove_prefix(kSubject.size());
    return std::string(fault);
  }
  return {};
}

std::vector<NumberedLine> numbered_lines(std::string_view text) {
  std::vector<NumberedLine> lines;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (!line.empty() && line.front() != '#') lines.push_back({.number = number, .text = line});
  }
  return lines;
}

std::string prompt_source(const std::string& path) {
  return path == "-" ? "--prompt-file -" : path;
}

std::string read_prompt_text(const std::string& path) {
  std::string text;
  if (path == "-") {
    text = read_stream(STDIN_FILENO, prompt_source(path));
  } else if (is_pipe(path)) {
    text = read_pipe(path);
  } else {
    const MappedFile file = MappedFile::open(path).value_or_throw(path);
    if (file.bytes().size() > kMaxInput) throw Error(path + ": more than 64 MiB of prompts");
    text = as_text(file.bytes());
  }
  if (const size_t zero = text.find('\0'); zero != std::string::npos) {
    throw Error(prompt_source(path) + ": is no text file (a zero byte at " + std::to_string(zero) +
                "); expected prompts in UTF-8, one a line");
  }
  return text;
}

std::vector<PromptLine> parse_prompt_lines(std::string_view text) {
  std::vector<PromptLine> lines;
  for (const NumberedLine& line : numbered_lines(text)) lines.push_back(parse_line(line));
  return lines;
}

std::vector<PromptLine> read_prompt_file(const std::string& path) {
  std::vector<PromptLine> lines = parse_prompt_lines(read_prompt_text(path));
  if (lines.empty()) throw Error(prompt_source(path) + ": holds no prompt");
  return lines;
}

}  // namespace volley::apps
