// tokenizer.json: whatever it holds is a fault of one line, or a tokenizer whose ids lie in its vocabulary.

#include "core/io/json.h"
#include "tests/fuzz/tokenizer_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace volley;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  fuzz::attempt([&] {
    fuzz::use_tokenizer(
        *text::parse_tokenizer_json(text, nlohmann::json::parse(R"({"bos_token":"<s>"})"), "fuzz"));
  });
  return 0;
}
