#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/backend/operations.h"
#include "core/decode/constrained_block.h"
#include "core/decode/generation.h"

namespace volley {

// A block of a masked output that is being filled.
struct BlockState {
  ConstrainedBlock::AutomatonState begin;
  std::span<const int32_t> tokens;  // [places] the mask where a place is hidden
  int64_t behind = 0;               // places of the output behind it
};

// What the model says of a hidden place.
struct HiddenPlace {
  SampleRow row;                 // its guess was drawn by
  std::span<const float> drawn;  // [vocab] what it was drawn from; read at a temperature only
  std::span<const float> plain;  // [vocab] the model's own distribution
};

// Guesses at all hidden places of a block, from the left, such that they and the block's tokens keep the
// constraint and the rest of the output can be filled. Greedy: the likeliest such block. At a temperature the
// one with the highest sum of log probability and Gumbel noise, which is the guess without a constraint where
// that keeps it; tokens that the filters took out come only where no other way is open. Throws Error if there
// are none.
std::vector<int32_t> constrained_guesses(ConstrainedBlock& block, const BlockState& state,
                                         std::span<const HiddenPlace> hidden, int32_t mask);

// A dynamic program for each generation, null where it has no constraint; equal ones share one. Throws Error
// for a constraint that no output of max_tokens keeps.
std::vector<std::shared_ptr<ConstrainedBlock>> constrained_blocks(std::span<const Generation> generations,
                                                                  int64_t vocab);

}  // namespace volley
