#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace volley::text {

// Rewrites a text before it is split. Const and shareable.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // The normalised text: `text` itself, or `storage`, which it fills.
  virtual std::string_view apply(std::string_view text, std::string& storage) const = 0;
};

// Throws Error where a text of `size` bytes became one so much longer that only a hostile vocabulary file
// can mean it: more than 64 times and 64 KiB.
void check_growth(size_t size, size_t normalized_size);

using NormalizerPtr = std::unique_ptr<const Normalizer>;

// Unicode's normal forms. Bytes that are no UTF-8 stay as they are and end a combining sequence.
enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
NormalizerPtr make_normal_form(NormalForm form);

NormalizerPtr make_lowercase();
NormalizerPtr make_strip_accents();  // drops combining marks
// Drops white space at the ends that are asked for.
enum class StripEnds { kNone, kLeft, kRight, kBoth };
NormalizerPtr make_strip(StripEnds ends);
NormalizerPtr make_prepend(std::string prefix);  // before texts that are not empty
NormalizerPtr make_replace(std::string from, std::string to);
NormalizerPtr make_regex_replace(std::string_view pattern, std::string to, const std::string& subject);

// SentencePiece's compiled table of replacements ("precompiled_charsmap"). `rule` is how a text is walked:
// as SentencePiece's own library (the longest entry at each place), or as Hugging Face's (whole grapheme
// clusters of up to five bytes first, then single characters, the shortest entry each).
enum class CharsmapRule { kLongestPrefix, kGraphemes };
Result<NormalizerPtr> make_charsmap(std::string_view table, CharsmapRule rule);

// SentencePiece's "remove_extra_whitespaces": spaces at the ends go, a run of them becomes one.
NormalizerPtr make_remove_extra_spaces();

NormalizerPtr make_normalizer_sequence(std::vector<NormalizerPtr> stages);

}  // namespace volley::text
