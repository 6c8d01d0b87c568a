#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/backend/operations.h"
#include "core/decode/constrained_block.h"
#include "core/decode/generation.h"
#include "core/decode/hidden_guesses.h"

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
// "--decoder <decoder>: constraint: ..." for a constraint that no output of max_tokens keeps.
std::vector<std::shared_ptr<ConstrainedBlock>> constrained_blocks(std::span<const Generation> generations,
                                                                  int64_t vocab, std::string_view decoder);

// What becomes of an output whose places are filled in any order and handed out from the left: its tokens
// and, if it has a constraint, guesses that keep it.
class FilledOutput {
 public:
  // `block`: of constrained_blocks; null without a constraint.
  FilledOutput(const Generation& generation, std::shared_ptr<ConstrainedBlock> block);

  bool is_constrained() const { return block_ != nullptr; }
  const std::vector<int32_t>& tokens() const { return output_.tokens; }
  bool is_finished() const { return output_.finished; }
  GenerationOutput take() { return std::move(output_); }

  // Hands out the next token.
  void add(int32_t token);
  void count_forward(int64_t rows) {
    ++output_.forwards;
    output_.rows += rows;
  }

  struct Guesses {
    std::vector<int32_t> tokens;  // of the places that were asked for
    std::vector<float> certainty;
  };
  // `places`: tokens of those behind the ones handed out, the mask where one is hidden; `asked` begins with
  // their hidden ones, and what it asks beyond them is guessed freely. Throws Error as constrained_guesses.
  Guesses guess(const HiddenGuesses& asked, const Samples& samples, std::span<const int32_t> places,
                Certainty certainty) const;

 private:
  std::vector<int32_t> guessed_tokens(const HiddenGuesses& asked, const Samples& samples,
                                      std::span<const int32_t> places) const;

  const Generation* generation_;
  std::shared_ptr<ConstrainedBlock> block_;
  ConstraintCursor cursor_;  // behind the output's tokens
  GenerationOutput output_;
};

}  // namespace volley
