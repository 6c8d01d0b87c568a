// SentencePiece models: whatever they hold is a fault of one line, or a tokenizer whose ids lie in its
// vocabulary.

#include "tests/fuzz/tokenizer_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace volley;
  const std::span file(reinterpret_cast<const std::byte*>(data), size);
  fuzz::attempt([&] { fuzz::use_tokenizer(*text::parse_sentencepiece(file, nullptr, "fuzz")); });
  return 0;
}
