#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "text/constraint/byte_automaton.h"

namespace volley::text {

enum class ConstraintKind : uint8_t { kRegex, kJsonSchema };

// What every answer of a request has to be.
struct TextConstraint {
  ConstraintKind kind = ConstraintKind::kRegex;
  std::string source;  // the pattern, or the schema's text
  std::shared_ptr<const ByteAutomaton> automaton;
};

// Throws Error kUsage "<subject>: <fault>".
TextConstraint make_text_constraint(ConstraintKind kind, std::string source, std::string_view subject);
// "--regex", "--json-schema"
std::string_view flag_of(ConstraintKind kind);

}  // namespace volley::text
