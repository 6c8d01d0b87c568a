#pragma once

#include <string>
#include <string_view>

#include "text/tokenizer/tokenizer.h"

namespace volley::text {

// Turns tokens into text as they come, without cutting a character: what several tokens spell together is
// held back until it is whole. All it returned, together with finish(), is decode() of the same tokens with
// U+FFFD for what is not UTF-8.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(TokenizerPtr tokenizer, DecodeSpecials specials = DecodeSpecials::kSkip);

  // The text that this token completes; may be empty.
  std::string push(int32_t id);
  // What is left of a character that was never completed; the next push begins a new text.
  std::string finish();

 private:
  TokenizerPtr tokenizer_;
  DecodeSpecials specials_;
  DecodeState state_;
  std::string held_;  // at most three bytes between calls
};

}  // namespace volley::text
