#include "apps/config_file.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <set>
#include <system_error>

#include "core/base/error.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

constexpr size_t kLongestFile = size_t{1} << 20;

std::string_view trimmed(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

bool is_name(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_';
  });
}

// One line of a file at a time.
class Parser {
 public:
  explicit Parser(const std::string& path) : path_(path) {}

  void line(std::string_view text) {
    ++line_;
    text = trimmed(text);
    if (text.empty() || text.front() == '#') return;
    if (text.front() == '[') return begin_section(text);
    const size_t equals = text.find('=');
    const std::string_view key = trimmed(text.substr(0, equals));
    if (equals == std::string_view::npos || !is_name(key)) fail("expected [section] or key = value");
    if (!seen_.insert(section_text_ + "." + std::string(key)).second)
      fail("key " + quote(key) + " stands twice");
    entries_.push_back({.section = section_,
                        .key = std::string(key),
                        .value = value_of(trimmed(text.substr(equals + 1))),
                        .line = line_});
  }

  std::vector<ConfigEntry> finish() && { return std::move(entries_); }

 private:
  [[noreturn]] void fail(const std::string& fault) const {
    throw Error(path_ + ":" + std::to_string(line_) + ": " + fault);
  }

  void require_end(std::string_view rest) const {
    rest = trimmed(rest);
    if (!rest.empty() && rest.front() != '#') fail("unexpected " + quote(rest));
  }

  void begin_section(std::string_view text) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) fail("section without ]");
    require_end(text.substr(end + 1));
    section_.clear();
    section_text_ = std::string(trimmed(text.substr(1, end - 1)));
    std::string_view rest = section_text_;
    while (true) {
      const size_t dot = std::min(rest.find('.'), rest.size());
      const std::string_view word = trimmed(rest.substr(0, dot));
      if (!is_name(word)) fail("section " + quote(section_text_) + ": expected names with dots between them");
      section_.emplace_back(word);
      if (dot == rest.size()) return;
      rest.remove_prefix(dot + 1);
    }
  }

  // A string in quotes, or a word.
  std::string value_of(std::string_view text) const {
    if (!text.empty() && (text.front() == '"' || text.front() == '\'')) return quoted(text);
    const size_t end = std::min(text.find_first_of(" \t#"), text.size());
    const std::string_view word = text.substr(0, end);
    if (word.empty() || word.find_first_of("[]{},\"'") != std::string_view::npos)
      fail("expected one string in quotes, number, true or false");
    require_end(text.substr(end));
    return std::string(word);
  }

  std::string quoted(std::string_view text) const {
    const char mark = text.front();
    std::string value;
    size_t i = 1;
    for (; i < text.size() && text[i] != mark; ++i) {
      if (mark == '"' && text[i] == '\\') {
        if (++i == text.size()) break;
        if (text[i] != '"' && text[i] != '\\') fail("unknown escape; single quotes take text as it is");
      }
      value += text[i];
    }
    if (i >= text.size()) fail("string without its closing quote");
    require_end(text.substr(i + 1));
    return value;
  }

  const std::string& path_;
  int line_ = 0;
  std::vector<std::string> section_;
  std::string section_text_;
  std::set<std::string> seen_;
  std::vector<ConfigEntry> entries_;
};

}  // namespace

std::vector<ConfigEntry> parse_config(std::string_view text, const std::string& path) {
  if (!is_valid_utf8(text)) throw Error(path + ": is not UTF-8");
  Parser parser(path);
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    parser.line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return std::move(parser).finish();
}

std::vector<ConfigEntry> read_config_file(const std::string& path) {
  // Read as a stream, so that /dev/null is a file without keys.
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path + ": cannot open: " + std::generic_category().message(errno));
  std::string text(kLongestFile + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) throw Error(path + ": cannot read");
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kLongestFile) throw Error(path + ": is larger than a configuration may be");
  return parse_config(text, path);
}

}  // namespace volley::apps
