// The published split patterns as scanners over character classes. tests/unit/text/pre_tokenizer_test.cpp
// holds each equal to its regular expression under PCRE2.
#include "text/tokenizer/pre_tokenizer.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Reads characters with their classes out of one text.
class Scan {
 public:
  explicit Scan(std::string_view text) : text_(text), classes_(CharClasses::get()) {}

  size_t size() const { return text_.size(); }
  bool at_end(size_t position) const { return position >= text_.size(); }
  unsigned char byte(size_t position) const { return static_cast<unsigned char>(text_[position]); }
  // 0 behind the end, which no ASCII comparison of the callers asks for.
  unsigned char byte_or_end(size_t position) const { return at_end(position) ? 0 : byte(position); }

  struct Read {
    CharClass type;
    size_t end;
  };
  // The character at a position before the end.
  Read read(size_t position) const {
    const unsigned char first = byte(position);
    if (first < 0x80) return {classes_.of_ascii(first), position + 1};
    const Character found = character_at(text_, position);
    return {classes_.of(found.code), position + found.bytes};
  }

  bool is(size_t position, CharClass type) const { return !at_end(position) && read(position).type == type; }

  // The end of the run of a class that begins at `position`.
  size_t run(size_t position, CharClass type) const {
    while (!at_end(position)) {
      const Read next = read(position);
      if (next.type != type) break;
      position = next.end;
    }
    return position;
  }

  std::string_view text() const { return text_; }

 private:
  std::string_view text_;
  const CharClasses& classes_;
};

unsigned char lower(unsigned char byte) {
  return byte >= 'A' && byte <= 'Z' ? static_cast<unsigned char>(byte + 32) : byte;
}

enum class Case { kAsWritten, kFolded };

// The end of 's, 't, 're, 've, 'm, 'll or 'd at an apostrophe; `position` where there is none.
template <Case fold>
size_t contraction(const Scan& scan, size_t position) {
  const auto letter = [&](size_t at) {
    const unsigned char found = scan.byte_or_end(at);
    return fold == Case::kFolded ? lower(found) : found;
  };
  switch (letter(position + 1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return position + 2;
    case 'r':
    case 'v':
      return letter(position + 2) == 'e' ? position + 3 : position;
    case 'l':
      return letter(position + 2) == 'l' ? position + 3 : position;
    case 0xc5:  // U+017F, the long s, is an s without regard to case
      return fold == Case::kFolded && scan.byte_or_end(position + 2) == 0xbf ? position + 3 : position;
    default:
      return position;
  }
}

// \s+(?!\S)|\s+ over the white space [begin, end): all of it at the end of the text; else the last
// character is left to the word behind it, unless it is the only one.
size_t spaces(const Scan& scan, size_t begin, size_t end) {
  if (scan.at_end(end)) return end;
  const size_t last = last_character(scan.text(), end);
  return last > begin ? last : end;
}

size_t next_gpt2(const Scan& scan, size_t begin) {
  if (scan.byte(begin) == '\'') {
    const size_t end = contraction<Case::kAsWritten>(scan, begin);
    if (end != begin) return end;
  }
  size_t start = begin;
  Scan::Read first = scan.read(begin);
  if (scan.byte(begin) == ' ' && !scan.at_end(begin + 1)) {
    const Scan::Read second = scan.read(begin + 1);
    if (second.type != CharClass::kSpace) {
      start = begin + 1;
      first = second;
    }
  }
  const size_t end = scan.run(first.end, first.type);
  return first.type == CharClass::kSpace ? spaces(scan, start, end) : end;
}

template <int number_run>
size_t next_llama3(const Scan& scan, size_t begin) {
  const unsigned char byte = scan.byte(begin);
  if (byte == '\'') {
    const size_t end = contraction<Case::kFolded>(scan, begin);
    if (end != begin) return end;
  }
  const Scan::Read first = scan.read(begin);
  if (first.type == CharClass::kLetter) return scan.run(first.end, CharClass::kLetter);
  if (first.type == CharClass::kNumber) {
    size_t end = first.end;
    for (int count = 1; count < number_run && scan.is(end, CharClass::kNumber); ++count) {
      end = scan.read(end).end;
    }
    return end;
  }
  const bool is_newline = byte == '\n' || byte == '\r';
  CharClass second_type = CharClass::kSpace;
  if (!scan.at_end(first.end)) {
    const Scan::Read second = scan.read(first.end);
    if (second.type == CharClass::kLetter && !is_newline) return scan.run(second.end, CharClass::kLetter);
    second_type = second.type;
  }
  if (first.type == CharClass::kOther || (byte == ' ' && second_type == CharClass::kOther)) {
    size_t end = scan.run(first.end, CharClass::kOther);
    while (scan.byte_or_end(end) == '\n' || scan.byte_or_end(end) == '\r') ++end;
    return end;
  }
  // White space: through its last line break if it has one.
  const size_t end = scan.run(first.end, CharClass::kSpace);
  for (size_t at = end; at > begin; --at) {
    const unsigned char before = scan.byte(at - 1);
    if (before == '\n' || before == '\r') return at;
  }
  return spaces(scan, begin, end);
}

template <size_t (*next)(const Scan&, size_t)>
class Scanner : public PreTokenizer {
 public:
  void split(const Piece& piece, PieceSink sink) const override {
    const Scan scan(piece.text);
    for (size_t begin = 0; begin < scan.size();) {
      const size_t end = next(scan, begin);
      sink({piece.text.substr(begin, end - begin), piece.at_text_start && begin == 0});
      begin = end;
    }
  }
};

template <DigitRuns runs>
size_t next_digits(const Scan& scan, size_t begin) {
  const Scan::Read first = scan.read(begin);
  if (first.type == CharClass::kNumber) {
    return runs == DigitRuns::kSingle ? first.end : scan.run(first.end, CharClass::kNumber);
  }
  size_t end = first.end;
  while (!scan.at_end(end)) {
    const Scan::Read next = scan.read(end);
    if (next.type == CharClass::kNumber) break;
    end = next.end;
  }
  return end;
}

class WhitespaceSplit : public PreTokenizer {
 public:
  void split(const Piece& piece, PieceSink sink) const override {
    const Scan scan(piece.text);
    for (size_t begin = 0; begin < scan.size();) {
      const Scan::Read first = scan.read(begin);
      if (first.type == CharClass::kSpace) {
        begin = first.end;
        continue;
      }
      size_t end = first.end;
      while (!scan.at_end(end)) {
        const Scan::Read next = scan.read(end);
        if (next.type == CharClass::kSpace) break;
        end = next.end;
      }
      sink({piece.text.substr(begin, end - begin), piece.at_text_start && begin == 0});
      begin = end;
    }
  }
};

}  // namespace

std::string_view regex_of(SplitPattern pattern) {
  switch (pattern) {
    case SplitPattern::kGpt2:
      return kGpt2Regex;
    case SplitPattern::kLlama3:
      return kLlama3Regex;
    case SplitPattern::kQwen2:
      break;
  }
  return kQwen2Regex;
}

PreTokenizerPtr make_scanner(SplitPattern pattern) {
  switch (pattern) {
    case SplitPattern::kGpt2:
      return std::make_unique<Scanner<next_gpt2>>();
    case SplitPattern::kLlama3:
      return std::make_unique<Scanner<next_llama3<3>>>();
    case SplitPattern::kQwen2:
      break;
  }
  return std::make_unique<Scanner<next_llama3<1>>>();
}

PreTokenizerPtr make_digit_split(DigitRuns runs) {
  if (runs == DigitRuns::kSingle) return std::make_unique<Scanner<next_digits<DigitRuns::kSingle>>>();
  return std::make_unique<Scanner<next_digits<DigitRuns::kRuns>>>();
}

PreTokenizerPtr make_whitespace_split() {
  return std::make_unique<WhitespaceSplit>();
}

}  // namespace volley::text
