#include "text/tokenizer/added_tokens.h"

#include <algorithm>

namespace volley::text {
namespace {

// A text without any costs one look at each byte; one of nothing but beginnings, this many.
constexpr size_t kMaxContentBytes = 1024;

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(character_at(text, last_character(text, text.size())).code);
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word(character_at(text, 0).code);
}

// Where the white space at the end of text[0, end) begins.
size_t space_before(std::string_view text, size_t end) {
  while (end > 0) {
    const size_t last = last_character(text, end);
    if (!is_white_space(character_at(text, last).code)) break;
    end = last;
  }
  return end;
}

size_t space_behind(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Character next = character_at(text, begin);
    if (!is_white_space(next.code)) break;
    begin += next.bytes;
  }
  return begin;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens, const std::string& subject)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string where = subject + ": added token " + std::to_string(tokens_[i].id);
    const std::string& content = tokens_[i].content;
    if (content.size() > kMaxContentBytes) {
      throw Error(where + ": " + std::to_string(content.size()) + " bytes, the limit is " +
                  std::to_string(kMaxContentBytes));
    }
    trie_.add(content, static_cast<int32_t>(i)).value_or_throw(where);
    begins_[static_cast<unsigned char>(content[0])] = true;
  }
}

void AddedTokenFinder::for_each_part(std::string_view text, Specials specials,
                                     FunctionRef<void(std::string_view, int32_t)> part) const {
  size_t done = 0;  // up to here parts were handed on
  if (!tokens_.empty()) {
    for (size_t at = 0; at < text.size();) {
      if (!begins_[static_cast<unsigned char>(text[at])]) {
        ++at;
        continue;
      }
      size_t length = 0;
      int32_t index = -1;
      trie_.prefixes(text.substr(at), [&](size_t found, int32_t value) {
        length = found;
        index = value;
      });
      if (index < 0) {
        ++at;
        continue;
      }
      const AddedToken& token = tokens_[static_cast<size_t>(index)];
      size_t begin = at;
      size_t end = at + length;
      at = end;  // whatever becomes of it, the search goes on behind
      if (specials == Specials::kSkip && token.is_special) continue;
      if (token.single_word &&
          (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) {
        continue;
      }
      // The search knows nothing of what rstrip took: a token within it is found again, as published
      // ids have it.
      if (token.lstrip) begin = std::min(std::max(space_before(text, begin), done), end);
      if (token.rstrip) end = space_behind(text, end);
      if (begin > done) part(text.substr(done, begin - done), -1);
      part(text.substr(begin, end - begin), token.id);
      done = end;
    }
  }
  if (done < text.size()) part(text.substr(done), -1);
}

}  // namespace volley::text
