#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer/streaming_decoder.h"

namespace volley::text {

// Cuts a text off before the first of some stop texts, as it comes. What might be the beginning of a stop
// text is held back until it is known not to be. The stop text that is complete first counts, of several
// that end together the longest: the cut does not depend on how the text was divided.
class StopFilter {
 public:
  // The stop texts: UTF-8, none empty.
  explicit StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // The text that is certain now; may be empty. Nothing comes once a stop text was found.
  std::string push(std::string_view text);
  // What was held back.
  std::string finish();
  bool is_stopped() const { return is_stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool is_stopped_ = false;
};

// An answer's tokens as text: whole characters, special tokens left out, cut off before a stop text. The
// bytes of a last character that no token completes are no text.
class TextStream {
 public:
  TextStream(TokenizerPtr tokenizer, std::vector<std::string> stops)
      : decoder_(std::move(tokenizer)), filter_(std::move(stops)) {}

  std::string push(int32_t token) { return filter_.push(decoder_.push(token)); }
  // What is left when no more tokens come.
  std::string finish() {
    decoder_.finish();
    return filter_.finish();
  }
  bool is_stopped() const { return filter_.is_stopped(); }

 private:
  StreamingDecoder decoder_;
  StopFilter filter_;
};

}  // namespace volley::text
