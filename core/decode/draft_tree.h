#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace volley {

// Proposed continuations of a token that is known (the root, which is not a node). A chain is a tree whose
// every node has one child.
struct DraftTree {
  std::vector<int32_t> tokens;  // [nodes]
  std::vector<int32_t>
      parents;  // [nodes] an earlier node, or -1: child of the root; siblings hold distinct tokens
  // [nodes, vocab] what each node's token was drawn from, or empty: the tokens were chosen deterministically.
  std::vector<float> distribution;

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  bool empty() const { return tokens.empty(); }
  // Adds a node and returns it.
  int32_t add(int32_t parent, int32_t token);
  // Distance from the root; a child of the root has depth 1.
  int64_t depth(int32_t node) const;
  // Drops nodes deeper than `depth`.
  void limit_depth(int64_t depth);
  // Children of `node` (-1: of the root) in order.
  std::vector<int32_t> children(int32_t node) const;

  static DraftTree chain(std::span<const int32_t> tokens);
};

}  // namespace volley
