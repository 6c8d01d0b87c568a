#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/function_ref.h"
#include "text/tokenizer/subword_model.h"

namespace volley::text {

// A part of a text on its way to the vocabulary; valid during the call that hands it over.
struct Piece {
  std::string_view text;       // not empty
  bool at_text_start = false;  // it begins where the whole text does
};

using PieceSink = FunctionRef<void(const Piece&)>;

// Cuts a piece into smaller ones, which a vocabulary then encodes each for itself. Const and shareable.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void split(const Piece& piece, PieceSink sink) const = 0;
};

using PreTokenizerPtr = std::unique_ptr<const PreTokenizer>;

// Hand-made scanners, equal to these patterns:
enum class SplitPattern {
  kGpt2,    // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kLlama3,  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
            //  ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  kQwen2,   // kLlama3 with \p{N} in place of \p{N}{1,3}
};

std::string_view regex_of(SplitPattern pattern);
PreTokenizerPtr make_scanner(SplitPattern pattern);

// Every number character alone, or runs of them; what lies between stays whole.
enum class DigitRuns { kSingle, kRuns };
PreTokenizerPtr make_digit_split(DigitRuns runs);

// Drops white space and hands on what lies between.
PreTokenizerPtr make_whitespace_split();

// What becomes of a match and of what lies between two matches.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Matches of a regular expression (the syntax is Oniguruma's as far as it is PCRE's too) or of a literal
// string. `invert`: the parts between matches count as the matches. Throws Error naming `subject` for a
// pattern that does not compile. The published patterns above go by the scanners, the others by PCRE2.
struct SplitRule {
  std::string pattern;
  enum class Kind { kRegex, kLiteral } kind = Kind::kRegex;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  enum class Matches { kAsFound, kInverted } matches = Matches::kAsFound;
};
PreTokenizerPtr make_split(const SplitRule& rule, const std::string& subject);
// The same, always by PCRE2.
PreTokenizerPtr make_regex_split(const SplitRule& rule, const std::string& subject);

// SentencePiece's escape: spaces become `replacement`, which is also put before the piece if it does not
// begin with it (always, or only where the text begins); then cuts before each replacement.
struct MetaspaceRule {
  std::string replacement = "\xe2\x96\x81";  // U+2581
  enum class Prepend { kAlways, kFirst, kNever } prepend = Prepend::kAlways;
  // What a piece that begins with a space or `replacement` already gets: nothing, or one more.
  enum class Existing { kEnough, kIgnored } existing = Existing::kEnough;
  enum class Cut { kWords, kNone } cut = Cut::kWords;
};
PreTokenizerPtr make_metaspace(const MetaspaceRule& rule);

// Puts a space before a piece that does not begin with one.
PreTokenizerPtr make_prefix_space();

// Cuts before each run of `mark`. Changes no token of a vocabulary that joins nothing across such a cut.
PreTokenizerPtr make_cut_before(std::string mark);

// Cuts between all characters but those whose neighbouring bytes are in `joined`.
PreTokenizerPtr make_cut_unless_joined(std::unique_ptr<const BytePairs> joined);

// One after the other.
PreTokenizerPtr make_sequence(std::vector<PreTokenizerPtr> stages);

}  // namespace volley::text
