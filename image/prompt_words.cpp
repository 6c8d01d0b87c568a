// The same rules as tools/train/prompts.py; tests/unit/image/prompt_words.json holds what both must give.
#include "image/prompt_words.h"

#include <algorithm>
#include <array>

namespace volley::image {
namespace {

constexpr std::array<size_t, 3> kPartLengths{3, 4, 5};

uint32_t fnv1a(std::string_view bytes) {
  uint32_t value = 2166136261u;
  for (unsigned char byte : bytes) value = (value ^ byte) * 16777619u;
  return value;
}

bool is_word_byte(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c >= 0x80;
}

}  // namespace

std::string with_plain_quotes(std::string_view text) {
  struct Quote {
    std::string_view typographic;
    char plain;
  };
  static constexpr std::array<Quote, 10> kQuotes{{{"\u2018", '\''},
                                                  {"\u2019", '\''},
                                                  {"\u201a", '\''},
                                                  {"\u201b", '\''},
                                                  {"\u02bc", '\''},
                                                  {"\u2032", '\''},
                                                  {"\u201c", '"'},
                                                  {"\u201d", '"'},
                                                  {"\u201e", '"'},
                                                  {"\u201f", '"'}}};
  std::string plain;
  while (!text.empty()) {
    const auto found = std::ranges::find_if(
        kQuotes, [&](const Quote& known) { return text.starts_with(known.typographic); });
    plain += found == kQuotes.end() ? text.front() : found->plain;
    text.remove_prefix(found == kQuotes.end() ? 1 : found->typographic.size());
  }
  return plain;
}

std::vector<std::string> prompt_words(std::string_view text) {
  std::vector<std::string> words;
  bool is_inside = false;
  for (const char c : with_plain_quotes(text)) {
    const bool continues = is_word_byte(static_cast<unsigned char>(c));
    if (continues && !is_inside) words.emplace_back();
    if (continues) words.back() += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    is_inside = continues;
  }
  return words;
}

std::vector<int32_t> word_rows(std::string_view word, int64_t buckets) {
  const std::string marked = "<" + std::string(word) + ">";
  const auto row = [&](std::string_view part) { return static_cast<int32_t>(fnv1a(part) % buckets); };
  std::vector<int32_t> rows{row(marked)};
  for (const size_t length : kPartLengths) {
    if (length >= marked.size()) break;
    for (size_t begin = 0; begin + length <= marked.size(); ++begin) {
      rows.push_back(row(std::string_view(marked).substr(begin, length)));
    }
  }
  return rows;
}

}  // namespace volley::image
