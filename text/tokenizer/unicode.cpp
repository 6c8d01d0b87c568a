#include "text/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>

namespace volley::text {
namespace {

bool is_continuation(unsigned char byte) {
  return (byte & 0xc0) == 0x80;
}

struct Range {
  char32_t first, last;
};

// Letters and numbers that Unicode 15, 15.1 and 16 added; the library's tables may be those of 14.
constexpr Range kNewLetters[] = {
    {0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},   {0x105c0, 0x105f3}, {0x10d4a, 0x10d65},
    {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x1123f, 0x11240}, {0x11380, 0x11389}, {0x1138b, 0x1138b},
    {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113b7}, {0x113d1, 0x113d1}, {0x113d3, 0x113d3},
    {0x11bc0, 0x11be0}, {0x11f02, 0x11f02}, {0x11f04, 0x11f10}, {0x11f12, 0x11f33}, {0x1342f, 0x1342f},
    {0x13441, 0x13446}, {0x13460, 0x143fa}, {0x16100, 0x1611d}, {0x16d40, 0x16d6c}, {0x18cff, 0x18cff},
    {0x1b132, 0x1b132}, {0x1b155, 0x1b155}, {0x1df25, 0x1df2a}, {0x1e030, 0x1e06d}, {0x1e4d0, 0x1e4eb},
    {0x1e5d0, 0x1e5ed}, {0x1e5f0, 0x1e5f0}, {0x2b739, 0x2b739}, {0x2ebf0, 0x2ee5d}, {0x31350, 0x323af}};
constexpr Range kNewNumbers[] = {
    {0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9}, {0x11f50, 0x11f59}, {0x16130, 0x16139},
    {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9}, {0x1d2c0, 0x1d2d3}, {0x1e4f0, 0x1e4f9}, {0x1e5f1, 0x1e5fa}};

CharClass library_class(char32_t code) {
  if (is_white_space(code)) return CharClass::kSpace;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    default:
      return CharClass::kOther;
  }
}

}  // namespace

Character character_at(std::string_view text, size_t position) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data()) + position;
  const size_t left = text.size() - position;
  const char32_t first = bytes[0];
  if (first < 0x80) return {first, 1};
  if (first < 0xc2 || left < 2 || !is_continuation(bytes[1])) return {kBadByte, 1};
  if (first < 0xe0) return {(first & 0x1f) << 6 | (bytes[1] & 0x3fu), 2};
  if (left < 3 || !is_continuation(bytes[2])) return {kBadByte, 1};
  if (first < 0xf0) {
    const char32_t code = (first & 0x0f) << 12 | (bytes[1] & 0x3fu) << 6 | (bytes[2] & 0x3fu);
    if (code < 0x800 || (code >= 0xd800 && code <= 0xdfff)) return {kBadByte, 1};
    return {code, 3};
  }
  if (first > 0xf4 || left < 4 || !is_continuation(bytes[3])) return {kBadByte, 1};
  const char32_t code =
      (first & 0x07) << 18 | (bytes[1] & 0x3fu) << 12 | (bytes[2] & 0x3fu) << 6 | (bytes[3] & 0x3fu);
  if (code < 0x10000 || code > 0x10ffff) return {kBadByte, 1};
  return {code, 4};
}

size_t last_character(std::string_view text, size_t end) {
  const std::string_view before = text.substr(0, end);
  for (size_t length = 2; length <= 4 && length <= end; ++length) {
    const Character found = character_at(before, end - length);
    if (found.bytes == length) return end - length;
  }
  return end - 1;
}

void append_utf8(std::string& text, char32_t code) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6);
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3f));
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

namespace {

// The length of the longest prefix of `text` that begins some character, if text does not begin with a
// whole one; 1 where nothing does.
size_t ill_formed_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const size_t wanted = first < 0xc2 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first <= 0xf4 ? 4 : 1;
  size_t length = 1;
  while (length < wanted && length < text.size()) {
    unsigned char low = 0x80, high = 0xbf;
    if (length == 1) {
      if (first == 0xe0) low = 0xa0;
      if (first == 0xed) high = 0x9f;
      if (first == 0xf0) low = 0x90;
      if (first == 0xf4) high = 0x8f;
    }
    if (byte(length) < low || byte(length) > high) break;
    ++length;
  }
  return length;
}

bool begins_character(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0xc2 || first > 0xf4) return false;
  const size_t wanted = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  return text.size() < wanted && ill_formed_length(text) == text.size();
}

}  // namespace

size_t incomplete_tail(std::string_view text) {
  for (size_t length = std::min<size_t>(3, text.size()); length > 0; --length) {
    if (begins_character(text.substr(text.size() - length))) return length;
  }
  return 0;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Character found = character_at(text, at);
    if (found.code != kBadByte) {
      valid.append(text, at, found.bytes);
      at += found.bytes;
    } else {
      valid += "\xef\xbf\xbd";
      at += ill_formed_length(text.substr(at));
    }
  }
  return valid;
}

const CharClasses& CharClasses::get() {
  static const CharClasses classes;
  return classes;
}

CharClasses::CharClasses() {
  // Beyond plane 3 there are only marks, private use and nothing: one page serves all.
  constexpr char32_t kEnd = 0x40000;
  std::vector<CharClass> flat(kEnd);
  for (char32_t code = 0; code < kEnd; ++code) flat[code] = library_class(code);
  for (const Range& range : kNewLetters) {
    std::fill(flat.begin() + range.first, flat.begin() + range.last + 1, CharClass::kLetter);
  }
  for (const Range& range : kNewNumbers) {
    std::fill(flat.begin() + range.first, flat.begin() + range.last + 1, CharClass::kNumber);
  }
  const auto add_page = [&](std::vector<CharClass>::const_iterator page) {
    for (size_t at = 0; at < classes_.size(); at += 256) {
      if (std::equal(page, page + 256, classes_.begin() + static_cast<ptrdiff_t>(at))) {
        return static_cast<uint16_t>(at / 256);
      }
    }
    classes_.insert(classes_.end(), page, page + 256);
    return static_cast<uint16_t>(classes_.size() / 256 - 1);
  };
  for (size_t page = 0; page < kEnd / 256; ++page) {
    pages_[page] = add_page(flat.begin() + static_cast<ptrdiff_t>(page * 256));
  }
  const std::vector<CharClass> nothing(256, CharClass::kOther);
  std::fill(pages_.begin() + kEnd / 256, pages_.end(), add_page(nothing.begin()));
}

bool is_white_space(char32_t code) {
  if (code < 0x80) return code == ' ' || (code >= 9 && code <= 13);
  return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) ||
         code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

bool is_word(char32_t code) {
  if (code >= kBadByte) return false;
  if (code == 0x200c || code == 0x200d) return true;
  if (CharClasses::get().of(code) == CharClass::kLetter) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      // Circled and other letter-like symbols that have the property Alphabetic.
      return (code >= 0x24b6 && code <= 0x24e9) || (code >= 0x1f130 && code <= 0x1f149) ||
             (code >= 0x1f150 && code <= 0x1f169) || (code >= 0x1f170 && code <= 0x1f189);
  }
}

}  // namespace volley::text
