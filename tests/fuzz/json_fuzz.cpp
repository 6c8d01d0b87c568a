// What is accepted is what the library itself would read, and survives being written and read again.

#include <string_view>

#include "core/io/json.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

// Gets a value or the error of a configuration that does not fit, in one line.
void attempt(const auto& get) {
  try {
    get();
  } catch (const volley::Error& error) {
    volley::fuzz::require(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace volley;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Result<nlohmann::json> parsed = parse_json(text);
  if (!parsed) {
    fuzz::require(parsed.fault().message.find('\n') == std::string::npos);
    return 0;
  }
  fuzz::require(parsed.value() == nlohmann::json::parse(text, nullptr, false));
  const Result<nlohmann::json> again = parse_json(parsed.value().dump());
  fuzz::require(again.ok() && again.value() == parsed.value());
  if (!parsed.value().is_object()) return 0;
  const JsonFields fields(parsed.value(), "fuzz");
  for (const char* key : {"a", "b", "dim"}) {
    attempt([&] { fields.integer_or(key, 1, {0, 100}); });
    attempt([&] { fields.integer(key); });
    attempt([&] { fields.number_or(key, 1, {0, 100}); });
    attempt([&] { fields.boolean_or(key, false); });
    attempt([&] { fields.text_or(key, "none"); });
    attempt([&] { fields.integers(key, {.low = 0}); });
    attempt([&] { fields.texts(key); });
    attempt([&] { fields.object(key).text("text"); });
  }
  return 0;
}
