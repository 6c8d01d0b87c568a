#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "text/constraint/byte_automaton.h"

namespace volley::text {

// A set of Unicode characters, surrogates never among them.
class CodePoints {
 public:
  struct Range {
    char32_t low = 0;
    char32_t high = 0;  // included
    bool operator==(const Range&) const = default;
  };
  CodePoints() = default;
  CodePoints(std::initializer_list<Range> ranges) {
    for (const Range& range : ranges) add(range);
  }

  void add(Range range);
  void add(const CodePoints& other);
  CodePoints complement() const;
  CodePoints intersection(const CodePoints& other) const;
  // Increasing, neither overlapping nor touching.
  const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

// How the characters of a pattern are written.
enum class Spelling : uint8_t {
  kPlain,       // UTF-8
  kJsonString,  // inside the quotes of a JSON string: " \ and control characters escaped, all others UTF-8
};

// Adds one character of the set between two nodes.
void add_character(ByteGraph& graph, ByteGraph::Node from, const CodePoints& set, Spelling spelling,
                   ByteGraph::Node to);

}  // namespace volley::text
