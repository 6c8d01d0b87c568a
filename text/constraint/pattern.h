#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "text/constraint/byte_automaton.h"
#include "text/constraint/code_points.h"

namespace volley::text {

// A regular expression, read. Its characters are Unicode's, its language is regular:
//
//   abc  .  [a-z]  [^a-z]           characters; . is any but line ends
//   \d \w \s  \D \W \S              ASCII digits, word characters, white space; and what is none of them
//   \n \r \t \f \v \0 \xHH \uHHHH \x{H...}    characters by name; \ before punctuation: itself
//   (a)  (?:a)  a|b                 groups, alternatives
//   a* a+ a? a{2} a{2,} a{2,5}      counts; *? and its like mean the same as *
//   ^ $                             at the beginning and end of the whole only
//
// What no automaton can do, or what would be another language in another dialect, is refused by its place:
// references to groups, lookaround, possessive counts, word borders, inline flags, \p classes.
class Pattern {
 public:
  enum class Extent : uint8_t {
    kWhole,   // it is the whole text: ^ and $ say nothing new
    kSearch,  // it is found somewhere in the text, but for ^ and $ (JSON Schema's `pattern`)
  };
  static constexpr int64_t kMaxBytes = 64 << 10;
  static constexpr int64_t kMaxDepth = 200;  // of groups
  static constexpr int64_t kMaxCount = 10'000;

  // Faults name the character: "character 5: ...".
  static Result<Pattern> parse(std::string_view text, Extent extent);

  // Adds what it matches behind `from`; returns the node behind it. Throws Fault when it is too large.
  ByteGraph::Node add_to(ByteGraph& graph, ByteGraph::Node from, Spelling spelling) const;

 private:
  struct Node {
    enum class Kind : uint8_t { kCharacter, kSequence, kAlternatives, kRepeat } kind = Kind::kSequence;
    CodePoints set;           // kCharacter
    std::vector<Node> parts;  // of the others; of kRepeat one
    int64_t low = 0;
    int64_t high = -1;  // negative: no limit
  };
  class Parser;

  static ByteGraph::Node add(const Node& node, ByteGraph& graph, ByteGraph::Node from, Spelling spelling);

  Node root_;
};

// The automaton of what a pattern matches as a whole. Faults as `Pattern::parse`, and "matches nothing", "is
// too large: ...".
Result<ByteAutomaton> compile_pattern(std::string_view text);

}  // namespace volley::text
