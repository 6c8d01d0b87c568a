#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/decode/decoder.h"

namespace volley {

// What of a sequence stays when it fills its context: the first `keep` tokens, and of those behind them the
// later half. `keep` leaves room for at least two.
struct ContextShift {
  int64_t context = 0;  // tokens of a sequence at most
  int64_t keep = 0;
};

// What stays of tokens that fill the context, in order; fewer than they were.
std::vector<int32_t> shifted(std::span<const int32_t> tokens, int64_t keep);
// What stays of a prompt that came token by token, with room for at least one token of an output behind it.
std::vector<int32_t> fitted(std::span<const int32_t> prompt, const ContextShift& shift);

// Decodes outputs that may outgrow their contexts: whenever one of `shifts[i].context` tokens is full, what
// stays of it is run again as a prompt, and the output goes on behind that, at its next position's noise and
// its constraint's state. Where that happens depends on the number of tokens alone. So a method's promises
// are those it makes for each stretch between two shifts: same-tokens methods give the tokens of sequential
// decoding by the same rule.
//
// `max_tokens` is of the whole output. Prompts hold tokens at the positions of their indices (token_prompt),
// fewer than the context, and no guidance. Methods that decode from left to right only. Generations whose
// contexts are full at different times wait for each other.
std::vector<GenerationOutput> decode_shifting(const Decoder& decoder, Session& session,
                                              std::span<const Generation> generations,
                                              std::span<const ContextShift> shifts,
                                              const DecodeControl& control);
// Cache entries a sequence needs for that.
int64_t shifting_entries(const Decoder& decoder, const Generation& generation, const ContextShift& shift);

}  // namespace volley
