#include "text/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

constexpr std::string_view kWord = R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200c}\x{200d})";
constexpr std::string_view kHexadecimal = "0-9a-fA-F";

// A pattern comes with a vocabulary and may be anything: a match may not take forever.
constexpr uint32_t kMatchLimit = 2'000'000;
constexpr size_t kMaxPatternBytes = 64 << 10;

struct MatchContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};

// Text with every byte that is no UTF-8 as U+FFFD, and where each byte of it comes from; empty where the
// text is UTF-8 already.
struct Repaired {
  std::string text;
  std::vector<uint32_t> origins;
};

Repaired repair(std::string_view text) {
  Repaired repaired;
  if (is_valid_utf8(text)) return repaired;
  for (size_t at = 0; at < text.size();) {
    const Character found = character_at(text, at);
    const size_t before = repaired.text.size();
    if (found.code == kBadByte) {
      repaired.text += "\xef\xbf\xbd";
    } else {
      repaired.text.append(text, at, found.bytes);
    }
    while (repaired.origins.size() < repaired.text.size()) {
      const size_t offset = repaired.origins.size() - before;
      repaired.origins.push_back(static_cast<uint32_t>(found.code == kBadByte ? at : at + offset));
    }
    at += found.bytes;
  }
  repaired.origins.push_back(static_cast<uint32_t>(text.size()));
  return repaired;
}

}  // namespace

struct Regex::Code {
  std::unique_ptr<pcre2_code, CodeDeleter> compiled;
  std::unique_ptr<pcre2_match_context, MatchContextDeleter> context;
  std::string subject;
};

std::string pcre_spelling(std::string_view pattern) {
  std::string spelled;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      const std::string_view members = escaped == 's' || escaped == 'S'   ? kWhiteSpace
                                       : escaped == 'w' || escaped == 'W' ? kWord
                                       : escaped == 'h' || escaped == 'H' ? kHexadecimal
                                                                          : std::string_view();
      const bool is_negated = escaped >= 'A' && escaped <= 'Z';
      if (!members.empty() && !in_class) {
        spelled += (is_negated ? "[^" : "[") + std::string(members) + "]";
      } else if (!members.empty() && !is_negated) {
        spelled += members;
      } else {
        spelled += c;
        spelled += escaped;
      }
      continue;
    }
    if (c == '[' && !in_class) {
      in_class = true;
      // A closing bracket right behind the opening one is a member.
      spelled += c;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') spelled += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') spelled += pattern[++i];
      continue;
    }
    if (c == ']') in_class = false;
    spelled += c;
  }
  return spelled;
}

Regex::Regex(std::string_view pattern, const std::string& subject) {
  if (pattern.size() > kMaxPatternBytes) {
    throw Error(subject + ": regular expression of " + std::to_string(pattern.size()) +
                " bytes, the limit is " + std::to_string(kMaxPatternBytes));
  }
  const std::string spelled = pcre_spelling(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_unique<Code>();
  code->compiled.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelled.data()), spelled.size(),
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                     &error, &offset, nullptr));
  if (!code->compiled) {
    PCRE2_UCHAR message[160];
    pcre2_get_error_message(error, message, sizeof(message));
    throw Error(subject + ": regular expression " + quote(pattern) + ": " +
                reinterpret_cast<const char*>(message));
  }
  // Multi-line: ^ and $ of Oniguruma stand at every line.
  // Without the just-in-time compiler matching is slower and the same.
  pcre2_jit_compile(code->compiled.get(), PCRE2_JIT_COMPLETE);
  code->context.reset(pcre2_match_context_create(nullptr));
  if (!code->context) throw Error(subject + ": out of memory");
  pcre2_set_match_limit(code->context.get(), kMatchLimit);
  code->subject = subject;
  code_ = std::move(code);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::for_each_match(std::string_view text, FunctionRef<void(size_t, size_t)> found) const {
  if (text.empty()) return;
  const Repaired repaired = repair(text);
  const bool is_repaired = !repaired.origins.empty();
  const std::string_view matched = is_repaired ? std::string_view(repaired.text) : text;
  const std::unique_ptr<pcre2_match_data, MatchDataDeleter> data(
      pcre2_match_data_create_from_pattern(code_->compiled.get(), nullptr));
  if (!data) throw Error(code_->subject + ": out of memory");
  for (size_t at = 0; at < matched.size();) {
    // Checked above: the library would check the whole text at every call.
    const int result = pcre2_match(code_->compiled.get(), reinterpret_cast<PCRE2_SPTR>(matched.data()),
                                   matched.size(), at, PCRE2_NO_UTF_CHECK, data.get(), code_->context.get());
    if (result == PCRE2_ERROR_NOMATCH) return;
    if (result < 0) {
      throw Error(code_->subject + ": regular expression gave up on a text of " +
                  std::to_string(text.size()) + " bytes");
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
    // \K in a lookahead can set the beginning behind the end.
    if (bounds[1] <= bounds[0]) {
      const size_t position = std::max<size_t>(at, bounds[1]);
      if (position >= matched.size()) return;
      at = position + character_at(matched, position).bytes;
      continue;
    }
    const size_t begin = std::max<size_t>(at, bounds[0]);
    const size_t end = bounds[1];
    if (begin < end) {
      if (is_repaired) {
        found(repaired.origins[begin], repaired.origins[end]);
      } else {
        found(begin, end);
      }
    }
    at = std::max(end, at + 1);
  }
}

}  // namespace volley::text
