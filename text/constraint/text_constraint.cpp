#include "text/constraint/text_constraint.h"

#include <utility>

#include "text/constraint/json_schema.h"
#include "text/constraint/pattern.h"

namespace volley::text {

TextConstraint make_text_constraint(ConstraintKind kind, std::string source, std::string_view subject) {
  Result<ByteAutomaton> made =
      kind == ConstraintKind::kRegex ? compile_pattern(source) : compile_json_schema(source);
  if (!made) throw Error(std::string(subject) + ": " + made.fault().message, ErrorKind::kUsage);
  return {.kind = kind,
          .source = std::move(source),
          .automaton = std::make_shared<const ByteAutomaton>(std::move(made.value()))};
}

std::string_view flag_of(ConstraintKind kind) {
  return kind == ConstraintKind::kRegex ? "--regex" : "--json-schema";
}

}  // namespace volley::text
