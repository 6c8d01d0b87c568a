#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/decode/constraint.h"

namespace volley {

// The likeliest tokens of a block of places that keep a constraint, found by a dynamic program over its
// states: every place is decided at once, and what is still hidden can be filled later. Ref: Suresh et al.
// 2025, "DINGO: constrained inference for diffusion LLMs". Differs in that stop tokens are told apart: one
// may come where the constraint accepts, and only stop tokens follow it.
class ConstrainedBlock {
 public:
  // Where an output is: in a state of the constraint, or behind a stop token.
  struct Place {
    Constraint::State state = Constraint::kBroken;
    bool has_ended = false;
    bool operator==(const Place&) const = default;
  };
  enum class End : uint8_t {
    kOpen,   // more places follow: the last state need not accept
    kWhole,  // the output ends with the block: a state that accepts, or behind a stop token
  };
  struct Request {
    Place begin;
    // [places, vocab] probabilities of the places' tokens; rows of hidden places are not read.
    std::span<const float> distribution;
    std::span<const bool> hidden;  // [places] to stay hidden; empty: none
    End end = End::kOpen;
  };
  struct Choice {
    std::vector<int32_t> tokens;   // [places]; -1: hidden
    Place end;                     // as one filling of the hidden places leads there
    double log_probability = 0.0;  // of the tokens that are not hidden; a probability of 0 counts as 1e-30
  };

  // Both must outlive it. Keeps what it learns of the constraint's states from call to call.
  ConstrainedBlock(const Constraint& constraint, std::span<const int32_t> stop_tokens, int64_t vocab);

  Place begin() const { return {.state = constraint_.start()}; }
  // Nothing if no tokens keep the constraint. Of equally likely choices the first, by state and token.
  std::optional<Choice> solve(const Request& request);

 private:
  // Tokens that lead from one place to another.
  struct Edge {
    Place to;
    std::vector<int32_t> tokens;  // increasing
  };
  const std::vector<Edge>& edges_of(const Place& from);
  bool is_end(const Place& place, End end);

  const Constraint& constraint_;
  std::span<const int32_t> stop_tokens_;
  int64_t vocab_;
  std::unordered_map<Constraint::State, std::vector<Edge>> edges_;  // the ended place is kBroken
};

}  // namespace volley
