// JSON schemas: a fault of one line, or an automaton whose matches are JSON and whose every state leads to
// one.

#include <nlohmann/json.hpp>

#include "tests/fuzz/automaton_check.h"
#include "text/constraint/json_schema.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace volley;
  const Result<text::ByteAutomaton> made =
      text::compile_json_schema({reinterpret_cast<const char*>(data), size});
  if (!made) {
    fuzz::check_fault(made.fault());
    return 0;
  }
  fuzz::check_matches(made.value(),
                      [](const std::string& text) { fuzz::require(nlohmann::json::accept(text)); });
  return 0;
}
