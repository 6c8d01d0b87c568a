#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/nn/arena.h"

namespace volley {

// Letters in shapes: G hidden rows, N paths, V candidates.
struct DraftHeadsTraits {
  std::string family;
  int64_t heads = 0;       // levels that they can draft
  int64_t dim = 0;         // width of the target's hidden rows
  int64_t vocab_size = 0;  // of the target
  // Target's token of each candidate, [V], increasing; empty: candidate i is token i.
  std::vector<int32_t> target_ids;
  // A head reads the tokens before the one it guesses, from the root on; else the hidden row alone.
  bool is_chained = false;

  int64_t candidates() const {
    return target_ids.empty() ? vocab_size : static_cast<int64_t>(target_ids.size());
  }
  int32_t token(int64_t candidate) const {
    return target_ids.empty() ? static_cast<int32_t>(candidate) : target_ids[static_cast<size_t>(candidate)];
  }
};

// What a head reads, in the backend's memory. The root is the token that the target chose by the hidden row;
// it stands before everything that heads guess.
struct DraftHeadsInputs {
  Queue& queue;
  Arena& arena;
  int64_t level = 0;   // which head: its guess stands level + 1 places behind the root
  ConstTensor hidden;  // [G, dim] behind the target's last norm
  // Of chained heads: each path's hidden row and tokens, side by side. Others read row n of `hidden` for
  // path n.
  Indices sources;  // [N, level + 2] a row of `hidden`, then -1 throughout
  Indices tokens;   // [N, level + 2] -1, then the root and the level tokens behind it
};

// Small networks on a target's hidden rows, each of which guesses the token at a fixed distance. Weights and
// nothing else: const and shareable. What is guessed for a path does not depend on the other paths.
class DraftHeads {
 public:
  virtual ~DraftHeads() = default;
  virtual const DraftHeadsTraits& traits() const = 0;
  // Fills `out`, [N, V], with the logits of head `in.level`.
  virtual void logits(const DraftHeadsInputs& in, Tensor out) const = 0;
};

}  // namespace volley
