#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/function_ref.h"
#include "text/tokenizer/unicode.h"
#include "text/tokenizer/vocabulary.h"

namespace volley::text {

// A token that is looked for in the text itself, before any splitting.
struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool is_special = false;
  bool single_word = false;  // not inside of a word
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and behind it
  bool normalized = false;   // looked for in the normalised text, spelled as the normaliser spells it
};

// Finds added tokens, the longest of those that begin at the leftmost place.
class AddedTokenFinder {
 public:
  // Throws Error "<subject>: ..." for empty and overlong contents.
  AddedTokenFinder(std::vector<AddedToken> tokens, const std::string& subject);

  bool empty() const { return tokens_.empty(); }

  // Hands on the text in order: parts between tokens with id -1, tokens with theirs. With kSkip the
  // special ones are not looked for.
  enum class Specials { kFind, kSkip };
  void for_each_part(std::string_view text, Specials specials,
                     FunctionRef<void(std::string_view, int32_t)> part) const;

 private:
  std::vector<AddedToken> tokens_;
  PrefixTrie trie_;  // values are indices into tokens_
  std::array<bool, 256> begins_{};
};

}  // namespace volley::text
