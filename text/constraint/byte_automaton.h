#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace volley::text {

// A deterministic automaton over bytes. From each of its states an accepting one can be reached.
class ByteAutomaton {
 public:
  using State = int32_t;
  static constexpr State kBroken = -1;
  static constexpr int64_t kMaxStates = 100'000;

  State start() const { return 0; }
  State next(State state, unsigned char byte) const {
    return table_[static_cast<size_t>(state) * static_cast<size_t>(classes_) + class_of_[byte]];
  }
  // The state behind `bytes`, kBroken as soon as there is no way on.
  State next(State state, std::string_view bytes) const;
  bool accepts(State state) const { return accepts_[static_cast<size_t>(state)]; }
  bool matches(std::string_view bytes) const;
  // What must come behind `state`, as far as there is no choice, at most `most` bytes: none where it accepts
  // or where several bytes may come.
  std::string forced(State state, size_t most) const;
  int64_t states() const { return static_cast<int64_t>(accepts_.size()); }

 private:
  friend class ByteGraph;

  std::array<uint8_t, 256> class_of_{};  // bytes that no state tells apart
  int32_t classes_ = 0;
  std::vector<State> table_;  // [states, classes]
  std::vector<bool> accepts_;
};

// A nondeterministic automaton under construction: what patterns and schemas are translated into.
class ByteGraph {
 public:
  using Node = int32_t;
  static constexpr int64_t kMaxNodes = 1'000'000;
  struct Bytes {
    uint8_t low = 0;
    uint8_t high = 0;  // included
  };

  // Throws Fault when there are too many.
  Node add_node();
  void add_edge(Node from, Bytes bytes, Node to) { edges_.push_back({from, to, bytes}); }
  void add_empty(Node from, Node to) { empties_.push_back({from, to}); }
  // Adds `bytes` behind `from` and returns the node behind them.
  Node add_text(Node from, std::string_view bytes);

  // Faults: nothing is accepted; more states than ByteAutomaton::kMaxStates, or as much work as would make
  // them.
  Result<ByteAutomaton> determinize(Node start, Node accept) const;

 private:
  struct Edge {
    Node from, to;
    Bytes bytes;
  };
  struct Empty {
    Node from, to;
  };
  class Determinizer;

  Node nodes_ = 0;
  std::vector<Edge> edges_;
  std::vector<Empty> empties_;
};

}  // namespace volley::text
