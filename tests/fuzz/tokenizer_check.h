#pragma once

#include <string>
#include <string_view>

#include "core/base/error.h"
#include "tests/fuzz/fuzz_target.h"
#include "text/tokenizer/read_tokenizer.h"

namespace volley::fuzz {

// Does something that may fail with an Error of one line.
inline void attempt(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    const std::string_view message = error.what();
    require(!message.empty() && message.find('\n') == std::string_view::npos);
  }
}

inline void use_tokenizer(const text::Tokenizer& tokenizer) {
  using namespace text;
  for (const std::string_view sample : {"", " ", "Hello, world 12", "  a\n\nb \xe2\x96\x81<s></s>",
                                        "e\xcc\x81\xef\xac\x81\xf0\x9f\x99\x82\xff\xe4",
                                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}) {
    const std::vector<int32_t> ids = tokenizer.encode(sample, {.frame = Frame::kWhole});
    for (const int32_t id : ids) require(id >= 0);
    tokenizer.encode(sample, {.special_text = SpecialText::kPlain});
    tokenizer.decode(ids);
    tokenizer.decode(ids, DecodeSpecials::kKeep);
  }
  for (int32_t id = -1; id <= std::min(tokenizer.vocab_size(), 300); ++id) tokenizer.piece(id);
}

}  // namespace volley::fuzz
