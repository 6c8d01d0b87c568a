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

// Characters of well-formed UTF-8; of other text, whatever comes out.
std::u32string characters_of(std::string_view text) {
  std::u32string characters;
  for (unsigned char c : text) {
    if ((c & 0xc0) == 0x80 && !characters.empty()) {
      characters.back() = characters.back() << 6 | (c & 0x3fu);
    } else {
      characters += static_cast<char32_t>(c >= 0xf0   ? c & 0x07
                                          : c >= 0xe0 ? c & 0x0f
                                          : c >= 0xc0 ? c & 0x1f
                                                      : c);
    }
  }
  return characters;
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

bool is_emoji_alone(std::string_view text) {
  struct Block {
    char32_t first, last;
  };
  // Blocks of pictures; then what joins and varies them.
  static constexpr std::array<Block, 10> kPictures{{{0xa9, 0xa9},
                                                    {0xae, 0xae},
                                                    {0x203c, 0x2049},
                                                    {0x2122, 0x2139},
                                                    {0x2190, 0x21ff},
                                                    {0x2300, 0x23ff},
                                                    {0x24c2, 0x27bf},
                                                    {0x2900, 0x2bff},
                                                    {0x3030, 0x3299},
                                                    {0x1f000, 0x1faff}}};
  static constexpr std::array<Block, 5> kJoiners{
      {{' ', ' '}, {0x200d, 0x200d}, {0x20e3, 0x20e3}, {0xfe0e, 0xfe0f}, {0xe0020, 0xe007f}}};
  const auto within = [](const auto& blocks, char32_t c) {
    return std::ranges::any_of(blocks, [c](const Block& b) { return c >= b.first && c <= b.last; });
  };
  const std::u32string characters = characters_of(text);
  return std::ranges::any_of(characters, [&](char32_t c) { return within(kPictures, c); }) &&
         std::ranges::all_of(characters,
                             [&](char32_t c) { return within(kPictures, c) || within(kJoiners, c); });
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
