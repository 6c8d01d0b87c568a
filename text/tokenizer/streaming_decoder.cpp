#include "text/tokenizer/streaming_decoder.h"

#include "text/tokenizer/unicode.h"

namespace volley::text {

StreamingDecoder::StreamingDecoder(TokenizerPtr tokenizer, DecodeSpecials specials)
    : tokenizer_(std::move(tokenizer)), specials_(specials), state_(tokenizer_->begin_text()) {}

std::string StreamingDecoder::push(int32_t id) {
  if (specials_ == DecodeSpecials::kSkip && tokenizer_->is_special(id)) return {};
  held_ += tokenizer_->next_bytes(id, state_);
  const size_t whole = held_.size() - incomplete_tail(held_);
  std::string text = replace_invalid_utf8(std::string_view(held_).substr(0, whole));
  held_.erase(0, whole);
  return text;
}

std::string StreamingDecoder::finish() {
  std::string text = replace_invalid_utf8(held_);
  held_.clear();
  state_ = tokenizer_->begin_text();
  return text;
}

}  // namespace volley::text
