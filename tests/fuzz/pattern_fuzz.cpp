// Regular expressions: a fault of one line, or an automaton whose matches are UTF-8 and whose every state
// leads to one; within JSON strings, matches that JSON reads.

#include <nlohmann/json.hpp>

#include "core/io/untrusted_text.h"
#include "tests/fuzz/automaton_check.h"
#include "text/constraint/pattern.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace volley;
  using namespace volley::text;
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const Result<ByteAutomaton> whole = compile_pattern(source);
  if (!whole) {
    fuzz::check_fault(whole.fault());
  } else {
    fuzz::check_matches(whole.value(), [](const std::string& text) { fuzz::require(is_valid_utf8(text)); });
  }
  const Result<Pattern> found = Pattern::parse(source, Pattern::Extent::kSearch);
  if (!found) {
    fuzz::check_fault(found.fault());
    return 0;
  }
  try {
    ByteGraph graph;
    const ByteGraph::Node start = graph.add_node();
    const Result<ByteAutomaton> quoted =
        graph.determinize(start, found.value().add_to(graph, start, Spelling::kJsonString));
    if (!quoted) return 0;
    fuzz::check_matches(quoted.value(), [](const std::string& text) {
      fuzz::require(nlohmann::json::accept("\"" + text + "\""));
    });
  } catch (const Fault& fault) {
    fuzz::check_fault(fault);
  }
  return 0;
}
