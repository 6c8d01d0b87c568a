#pragma once

#include <string_view>

#include "core/base/error.h"
#include "text/constraint/byte_automaton.h"

namespace volley::text {

// Times that a reference may stand within itself; deeper ones cannot be chosen.
inline constexpr int64_t kMaxSchemaNesting = 4;
// Levels of arrays and objects in a value of which a schema says nothing.
inline constexpr int64_t kFreeValueDepth = 3;

// The automaton of JSON texts that a schema holds for: some of them all, as docs/text.md tells (properties in
// the schema's order, one way to write each character, at most one space behind a comma or colon). Every text
// that it matches is JSON and valid. Faults name the place in the schema: "#/properties/a: keyword 'format'
// is not supported".
Result<ByteAutomaton> compile_json_schema(std::string_view schema);

}  // namespace volley::text
