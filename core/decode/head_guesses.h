#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/decode/constraint.h"
#include "core/decode/logits_chain.h"
#include "core/nn/draft_heads.h"

namespace volley {

// A token that heads guess, and how sure they are of it.
struct HeadGuess {
  int32_t token = -1;
  double probability = 0.0;
};

enum class GuessNoise : uint8_t {
  kTargets,  // that by which the target will choose at this place
  kNone,
};

// The place in the output that is guessed.
struct GuessPlace {
  const LogitsChain& chain;
  OutputPlace output;
  GuessNoise noise = GuessNoise::kTargets;
  std::span<const int32_t> path;  // all tokens before it; only the penalty reads them
  ConstraintCursor cursor;        // before it
};

// At most `count` tokens, likeliest first, by the chain's own rule: of what the constraint allows, penalty,
// temperature and filters, then logits plus noise; ties go to the lowest id. Their probabilities are the
// softmax of these sums: how far a guess leads, noise included. None where nothing may come. `logits`: [V].
std::vector<HeadGuess> best_guesses(const DraftHeadsTraits& heads, std::span<const float> logits,
                                    const GuessPlace& place, int64_t count);

}  // namespace volley
