// Patterns of output names: numbers and fields in a path.
#include <algorithm>
#include <array>
#include <charconv>

#include "apps/output_names.h"
#include "core/base/error.h"

namespace volley::apps {
namespace {

constexpr int64_t kMaxDigits = 18;
constexpr size_t kLongestField = 80;
constexpr std::array<std::string_view, 4> kFields{"prompt", "name", "line", "seed"};

// A part of a pattern: text as it is, a number, or a field.
struct Part {
  enum class Kind : uint8_t { kText, kNumber, kField };
  Kind kind = Kind::kText;
  std::string text;  // or the field's name
  int64_t digits = 0;
};

[[noreturn]] void fail(const std::string& flag, const std::string& pattern, const std::string& fault) {
  throw Error(flag + " " + pattern + ": " + fault, ErrorKind::kUsage);
}

// "%", up to two digits, "d" at place `i`, which moves behind it.
Part parse_number(const std::string& flag, const std::string& pattern, size_t& i) {
  int64_t digits = 0;
  const char* end = pattern.data() + pattern.size();
  const auto parsed = std::from_chars(pattern.data() + i + 1, end, digits);
  const size_t stop = static_cast<size_t>(parsed.ptr - pattern.data());
  if (stop >= pattern.size() || pattern[stop] != 'd' || parsed.ec == std::errc::result_out_of_range ||
      digits > kMaxDigits || digits < 0) {
    fail(flag, pattern, "after % expected a number's width and d, as in %03d");
  }
  i = stop + 1;
  return {.kind = Part::Kind::kNumber, .digits = digits};
}

// "{word}" at place `i`, which moves behind it; other braces are text.
Part parse_field(const std::string& flag, const std::string& pattern, size_t& i) {
  const size_t close = pattern.find('}', i);
  const std::string word = close == std::string::npos ? "" : pattern.substr(i + 1, close - i - 1);
  const auto is_letter = [](char c) { return c >= 'a' && c <= 'z'; };
  if (word.empty() || !std::ranges::all_of(word, is_letter)) {
    ++i;
    return {.text = "{"};
  }
  if (std::ranges::find(kFields, word) == kFields.end()) {
    fail(flag, pattern, "no field {" + word + "}; known are {prompt}, {name}, {line} and {seed}");
  }
  i = close + 1;
  return {.kind = Part::Kind::kField, .text = word};
}

std::vector<Part> parse(const std::string& flag, const std::string& pattern) {
  std::vector<Part> parts;
  bool has_number = false;
  for (size_t i = 0; i < pattern.size();) {
    if (pattern[i] == '%' && pattern.substr(i, 2) != "%%") {
      if (has_number) fail(flag, pattern, "holds two numbers, expected one");
      parts.push_back(parse_number(flag, pattern, i));
      has_number = true;
    } else if (pattern[i] == '{') {
      parts.push_back(parse_field(flag, pattern, i));
    } else {
      parts.push_back({.text = std::string(1, pattern[i])});
      i += pattern[i] == '%' ? 2 : 1;
    }
  }
  return parts;
}

std::string padded(int64_t number, int64_t digits) {
  std::string text = std::to_string(number);
  if (static_cast<int64_t>(text.size()) < digits)
    text.insert(0, static_cast<size_t>(digits) - text.size(), '0');
  return text;
}

// Free text as a part of a file name: letters, digits and what is not ASCII; dashes for the rest.
std::string as_file_name(const std::string& text) {
  std::string name;
  for (char c : text) {
    const bool is_kept =
        (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || static_cast<unsigned char>(c) >= 0x80;
    if (c >= 'A' && c <= 'Z') {
      name += static_cast<char>(c - 'A' + 'a');
    } else if (is_kept) {
      name += c;
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  size_t end = std::min(name.size(), kLongestField);
  while (end < name.size() && end > 0 && (static_cast<unsigned char>(name[end]) & 0xC0) == 0x80) --end;
  name.resize(end);
  while (!name.empty() && name.back() == '-') name.pop_back();
  return name.empty() ? "picture" : name;
}

std::string field_text(const std::string& field, const OutputFields& fields) {
  if (field == "line") return std::to_string(fields.line);
  if (field == "seed") return std::to_string(fields.seed);
  if (field == "name" && !fields.name.empty()) return fields.name;
  return as_file_name(fields.prompt);
}

}  // namespace

bool has_place(const std::string& flag, const std::string& pattern) {
  return std::ranges::any_of(parse(flag, pattern),
                             [](const Part& part) { return part.kind != Part::Kind::kText; });
}

std::string fill_pattern(const std::string& flag, const std::string& pattern, int64_t number,
                         const OutputFields& fields) {
  std::string path;
  for (const Part& part : parse(flag, pattern)) {
    switch (part.kind) {
      case Part::Kind::kText:
        path += part.text;
        break;
      case Part::Kind::kNumber:
        path += padded(number, part.digits);
        break;
      case Part::Kind::kField:
        path += field_text(part.text, fields);
        break;
    }
  }
  return path;
}

}  // namespace volley::apps
