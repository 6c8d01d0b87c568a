#include "text/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "text/tokenizer/regex.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

bool is_mark(char32_t code) {
  const utf8proc_category_t found = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return found == UTF8PROC_CATEGORY_MN || found == UTF8PROC_CATEGORY_MC || found == UTF8PROC_CATEGORY_ME;
}

class NormalFormNormalizer : public Normalizer {
 public:
  explicit NormalFormNormalizer(NormalForm form) : form_(form) {
    options_ = UTF8PROC_STABLE;
    const bool is_composed = form == NormalForm::kNfc || form == NormalForm::kNfkc;
    const bool is_compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
    options_ |= is_composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (is_compatible) options_ |= UTF8PROC_COMPAT;
    // Below these no character changes, nor combines with one before it.
    stable_below_ = form == NormalForm::kNfc ? 0x300 : form == NormalForm::kNfd ? 0xc0 : 0xa0;
  }

  std::string_view apply(std::string_view text, std::string& storage) const override {
    // Only spans between characters that stay as they are get normalised: most text has none.
    bool is_changed = false;
    size_t copied = 0;
    size_t boundary = 0;  // the last place where what stands before and behind do not interact
    for (size_t at = 0; at < text.size();) {
      const auto byte = static_cast<unsigned char>(text[at]);
      if (byte < 0x80) {
        boundary = at++;
        continue;
      }
      const Character found = character_at(text, at);
      if (is_stable(found.code)) {
        boundary = at;
        at += found.bytes;
        continue;
      }
      size_t end = at + found.bytes;
      while (end < text.size()) {
        const Character next = character_at(text, end);
        if (is_stable(next.code)) break;
        end += next.bytes;
      }
      // A byte that is no UTF-8 is a boundary, not a character to combine with.
      const std::string_view span = text.substr(boundary, end - boundary);
      const size_t skip = character_at(span, 0).code == kBadByte ? 1 : 0;
      if (!is_changed) storage.clear();
      is_changed = true;
      storage.append(text, copied, boundary + skip - copied);
      normalise(span.substr(skip), storage);
      copied = boundary = at = end;
    }
    if (!is_changed) return text;
    storage.append(text, copied, text.size() - copied);
    return storage;
  }

 private:
  bool is_stable(char32_t code) const {
    if (code < stable_below_ || code >= kBadByte) return true;
    const bool is_jamo = code >= 0x1100 && code <= 0x11ff;
    const bool is_syllable = code >= 0xac00 && code <= 0xd7a3;
    const bool is_decomposed = form_ == NormalForm::kNfd || form_ == NormalForm::kNfkd;
    if (is_jamo || (is_syllable && is_decomposed)) return false;
    const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(code));
    return property->decomp_seqindex == UINT16_MAX && !is_mark(code);
  }

  void normalise(std::string_view span, std::string& out) const {
    utf8proc_uint8_t* mapped = nullptr;
    const utf8proc_ssize_t length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(span.data()),
                                                 static_cast<utf8proc_ssize_t>(span.size()), &mapped,
                                                 static_cast<utf8proc_option_t>(options_));
    if (length < 0) throw Error(std::string("normalising a text: ") + utf8proc_errmsg(length));
    out.append(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
    std::free(mapped);
  }

  NormalForm form_;
  int options_ = 0;
  char32_t stable_below_ = 0;
};

// Rewrites character by character; bytes that are no UTF-8 stay.
template <typename Rewrite>
class PerCharacter : public Normalizer {
 public:
  explicit PerCharacter(Rewrite rewrite) : rewrite_(rewrite) {}

  std::string_view apply(std::string_view text, std::string& storage) const override {
    storage.clear();
    for (size_t at = 0; at < text.size();) {
      const Character found = character_at(text, at);
      if (found.code == kBadByte) {
        storage += text[at];
      } else {
        rewrite_(found.code, text.substr(at, found.bytes), storage);
      }
      at += found.bytes;
    }
    return storage;
  }

 private:
  Rewrite rewrite_;
};

class Strip : public Normalizer {
 public:
  explicit Strip(StripEnds ends) : ends_(ends) {}

  std::string_view apply(std::string_view text, std::string&) const override {
    if (ends_ == StripEnds::kLeft || ends_ == StripEnds::kBoth) {
      while (!text.empty()) {
        const Character first = character_at(text, 0);
        if (!is_white_space(first.code)) break;
        text.remove_prefix(first.bytes);
      }
    }
    if (ends_ == StripEnds::kRight || ends_ == StripEnds::kBoth) {
      while (!text.empty()) {
        const size_t last = last_character(text, text.size());
        if (!is_white_space(character_at(text, last).code)) break;
        text = text.substr(0, last);
      }
    }
    return text;
  }

 private:
  StripEnds ends_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}

  std::string_view apply(std::string_view text, std::string& storage) const override {
    if (text.empty()) return text;
    storage.assign(prefix_).append(text);
    return storage;
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}

  std::string_view apply(std::string_view text, std::string& storage) const override {
    if (from_.empty()) return text;
    size_t found = text.find(from_);
    if (found == text.npos) return text;
    storage.clear();
    size_t copied = 0;
    for (; found != text.npos; found = text.find(from_, copied)) {
      storage.append(text, copied, found - copied).append(to_);
      check_growth(text.size(), storage.size());
      copied = found + from_.size();
    }
    storage.append(text, copied, text.size() - copied);
    return storage;
  }

 private:
  std::string from_, to_;
};

class RegexReplace : public Normalizer {
 public:
  RegexReplace(std::string_view pattern, std::string to, const std::string& subject)
      : regex_(pattern, subject), to_(std::move(to)) {}

  std::string_view apply(std::string_view text, std::string& storage) const override {
    storage.clear();
    size_t copied = 0;
    regex_.for_each_match(text, [&](size_t begin, size_t end) {
      storage.append(text, copied, begin - copied).append(to_);
      check_growth(text.size(), storage.size());
      copied = end;
    });
    if (copied == 0) return text;
    storage.append(text, copied, text.size() - copied);
    return storage;
  }

 private:
  Regex regex_;
  std::string to_;
};

class RemoveExtraSpaces : public Normalizer {
 public:
  std::string_view apply(std::string_view text, std::string& storage) const override {
    while (text.starts_with(' ')) text.remove_prefix(1);
    while (text.ends_with(' ')) text.remove_suffix(1);
    if (text.find("  ") == text.npos) return text;
    storage.clear();
    for (const char c : text) {
      if (c != ' ' || !storage.ends_with(' ')) storage += c;
    }
    return storage;
  }
};

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<NormalizerPtr> stages) : stages_(std::move(stages)) {}

  std::string_view apply(std::string_view text, std::string& storage) const override {
    std::string other;
    const size_t size = text.size();
    for (const NormalizerPtr& stage : stages_) {
      const std::string_view next = stage->apply(text, other);
      check_growth(size, next.size());
      // A stage may hand back a part of what it was given, which still lies in `storage`.
      if (next.data() == other.data() && !other.empty()) {
        storage.swap(other);
        text = storage;
      } else {
        text = next;
      }
    }
    return text;
  }

 private:
  std::vector<NormalizerPtr> stages_;
};

void lower_case(char32_t code, std::string_view, std::string& out) {
  // The one character whose small form by Unicode's own tables is two.
  if (code == 0x130) {
    out += "i\xcc\x87";
    return;
  }
  append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
}

void strip_accent(char32_t code, std::string_view spelled, std::string& out) {
  if (!is_mark(code)) out += spelled;
}

}  // namespace

void check_growth(size_t size, size_t normalized_size) {
  constexpr size_t kFree = 64 << 10;
  if (normalized_size <= kFree || (normalized_size - kFree) / 64 <= size) return;
  throw Error("normalising a text of " + std::to_string(size) + " bytes: it grows more than 64-fold");
}

NormalizerPtr make_normal_form(NormalForm form) {
  return std::make_unique<NormalFormNormalizer>(form);
}

NormalizerPtr make_lowercase() {
  return std::make_unique<PerCharacter<decltype(&lower_case)>>(&lower_case);
}

NormalizerPtr make_strip_accents() {
  return std::make_unique<PerCharacter<decltype(&strip_accent)>>(&strip_accent);
}

NormalizerPtr make_strip(StripEnds ends) {
  return std::make_unique<Strip>(ends);
}

NormalizerPtr make_prepend(std::string prefix) {
  return std::make_unique<Prepend>(std::move(prefix));
}

NormalizerPtr make_replace(std::string from, std::string to) {
  return std::make_unique<Replace>(std::move(from), std::move(to));
}

NormalizerPtr make_regex_replace(std::string_view pattern, std::string to, const std::string& subject) {
  return std::make_unique<RegexReplace>(pattern, std::move(to), subject);
}

NormalizerPtr make_remove_extra_spaces() {
  return std::make_unique<RemoveExtraSpaces>();
}

NormalizerPtr make_normalizer_sequence(std::vector<NormalizerPtr> stages) {
  if (stages.size() == 1) return std::move(stages.front());
  return std::make_unique<NormalizerSequence>(std::move(stages));
}

}  // namespace volley::text
