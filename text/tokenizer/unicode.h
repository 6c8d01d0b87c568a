#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace volley::text {

struct Character {
  char32_t code = 0;  // kBadByte for a byte that belongs to no well-formed character
  uint32_t bytes = 0;
};

inline constexpr char32_t kBadByte = 0x110000;

// The character at `position` < text.size(). Shortest forms only, no surrogates.
Character character_at(std::string_view text, size_t position);

// Where the last character of text[0, end) begins; end > 0.
size_t last_character(std::string_view text, size_t end);

void append_utf8(std::string& text, char32_t code);

// How many bytes at the end of `text` may be the beginning of a character that is not complete: 0 to 3.
size_t incomplete_tail(std::string_view text);

// `text` with U+FFFD for each maximal part that is not UTF-8, as Python's errors="replace" does it.
std::string replace_invalid_utf8(std::string_view text);

// The general categories that pre-tokenizers tell apart. kSpace is the property White_Space, whatever the
// category; marks are "other" to every pattern of the field so far.
enum class CharClass : uint8_t { kOther, kSpace, kLetter, kNumber };

// Classes of all characters by Unicode 16, which is what the published patterns' regex engine knows today.
class CharClasses {
 public:
  static const CharClasses& get();

  CharClass of(char32_t code) const {
    if (code >= kBadByte) return CharClass::kOther;
    return classes_[static_cast<size_t>(pages_[code >> 8]) << 8 | (code & 0xff)];
  }
  CharClass of_ascii(unsigned char byte) const { return classes_[byte]; }  // byte < 0x80

 private:
  CharClasses();
  std::array<uint16_t, kBadByte / 256> pages_{};
  std::vector<CharClass> classes_;  // pages of 256; page 0 is that of ASCII
};

bool is_white_space(char32_t code);
// A word character of Unicode's regular expressions: letters, marks, decimal digits, connectors.
bool is_word(char32_t code);

}  // namespace volley::text
