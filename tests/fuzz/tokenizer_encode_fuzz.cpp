// Any bytes through byte-level vocabularies and one with byte fallback: they come back unchanged, at once
// and token by token; and the streamed text is UTF-8.

#include "core/io/untrusted_text.h"
#include "tests/fuzz/tokenizer_check.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/streaming_decoder.h"
#include "text/tokenizer/unicode.h"

namespace {

using namespace volley;
using namespace volley::text;

TokenizerPtr make(const std::string& pre) {
  TokenizerArrays arrays{.model = "gpt2", .pre = pre};
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    arrays.tokens.push_back(spell_bytes({&c, 1}));
  }
  // Merges that overlap, so that their order counts.
  for (const char* merge :
       {"a b", "b a", "ab a", "Ġ a", "1 2", "a a", "aa aa", "Ġ Ġ", "ĠĠ ĠĠ", "Ġa b", "â ĸ", "âĸ ģ"}) {
    arrays.merges.emplace_back(merge);
    std::string joined = merge;
    joined.erase(joined.find(' '), 1);
    arrays.tokens.push_back(joined);
  }
  return make_tokenizer(arrays, "fuzz");
}

TokenizerPtr make_scored() {
  TokenizerArrays arrays{.model = "llama"};
  arrays.add_bos = false;
  for (const char* token : {"<unk>", "\xe2\x96\x81", "a", "b", "ab",
                            "\xe2\x96\x81"
                            "a",
                            "aa", "aaaa", "ba"}) {
    arrays.tokens.emplace_back(token);
    arrays.scores.push_back(-static_cast<float>(arrays.tokens.size()));
  }
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(byte));
    arrays.tokens.emplace_back(name);
    arrays.scores.push_back(0);
  }
  return make_tokenizer(arrays, "fuzz");
}

void check(const TokenizerPtr& tokenizer, const std::string& bytes) {
  const std::vector<int32_t> ids = tokenizer->encode(bytes);
  fuzz::require(tokenizer->decode(ids) == bytes);
  StreamingDecoder stream(tokenizer);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    fuzz::require(is_valid_utf8(part));
    streamed += part;
  }
  streamed += stream.finish();
  fuzz::require(streamed == replace_invalid_utf8(bytes));
  fuzz::require(tokenizer->encode(bytes) == ids);  // with what it remembers now
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<TokenizerPtr> kTokenizers = {make("gpt-2"), make("llama-bpe"), make("smollm")};
  static const TokenizerPtr kScored = make_scored();
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const TokenizerPtr& tokenizer : kTokenizers) check(tokenizer, bytes);
  // Its own escape comes back as the space that it stands for.
  if (bytes.find("\xe2\x96\x81") == bytes.npos) check(kScored, bytes);
  return 0;
}
