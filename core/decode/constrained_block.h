#pragma once

#include <cstdint>
#include <deque>
#include <map>
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
  struct AutomatonState {
    Constraint::State state = Constraint::kBroken;
    bool has_ended = false;
    bool operator==(const AutomatonState&) const = default;
  };
  enum class End : uint8_t {
    kOpen,   // more places follow, nobody knows how many: the last state need not accept
    kWhole,  // the output ends with the block and `behind`: in a state that accepts, or behind a stop token
  };
  struct Request {
    AutomatonState begin;
    // [places, vocab] probabilities of the places' tokens, or other weights; rows of hidden and fixed places
    // are not read.
    std::span<const float> distribution;
    std::span<const bool> hidden;    // [places] to stay hidden; empty: none
    std::span<const int32_t> fixed;  // [places] the token that stands there, -1: none; empty: none anywhere
    End end = End::kOpen;
    int64_t behind = 0;  // of kWhole: hidden places between the block and the output's end
  };
  struct Choice {
    std::vector<int32_t> tokens;   // [places]; -1: hidden
    AutomatonState end;            // as one filling of the hidden places leads there
    double log_probability = 0.0;  // of the tokens that were chosen; a probability of 0 counts as 1e-30
  };
  // Token ids that it keeps at most; equal lists of different states count once.
  static constexpr int64_t kMaxListedTokens = int64_t{1} << 26;

  // Constraint and stop tokens must outlive it. Keeps what it learns of the constraint's states from call to
  // call. `never` is a token that is not chosen: a masked model's mask.
  ConstrainedBlock(const Constraint& constraint, std::span<const int32_t> stop_tokens, int64_t vocab,
                   int32_t never = -1);

  AutomatonState begin() const { return {.state = constraint_.start()}; }
  // Nothing if no tokens keep the constraint. Of equally likely choices the first, by state and token.
  // Requests for a kWhole end look at every state that can be reached from `begin`. Throws Error if those
  // have more than kMaxListedTokens.
  std::optional<Choice> solve(const Request& request);
  // Whether an output that is in state `at` can end `places` further on. Looks at states as kWhole does.
  bool can_end(const AutomatonState& at, int64_t places);
  // The least such number; nothing if there is none.
  std::optional<int64_t> least_places(const AutomatonState& at);

 private:
  // Tokens that lead from one node to another.
  struct Edge {
    size_t to = 0;
    size_t list = 0;  // of lists_
  };
  // A state that can be reached.
  struct Node {
    AutomatonState at;
    bool is_expanded = false;
    std::vector<Edge> edges;
  };
  class Lattice;

  bool is_stop(int32_t token) const;
  size_t node_of(const AutomatonState& at);
  const std::vector<Edge>& edges_of(size_t node);
  void add_edge(size_t from, const AutomatonState& to, std::vector<int32_t> tokens);
  std::optional<AutomatonState> follow(const AutomatonState& from, int32_t token) const;
  bool is_whole(size_t node) const;
  bool node_can_end(size_t node, int64_t places);
  void expand_all();

  const Constraint& constraint_;
  std::span<const int32_t> stop_tokens_;
  int64_t vocab_;
  int32_t never_;
  std::deque<Node> nodes_;
  std::unordered_map<Constraint::State, size_t> node_of_state_;  // the ended state is kBroken
  std::map<std::vector<int32_t>, size_t> list_index_;            // increasing tokens
  std::vector<const std::vector<int32_t>*> lists_;
  int64_t listed_tokens_ = 0;
  size_t expanded_ = 0;                     // the first nodes, all of which are expanded
  std::vector<std::vector<bool>> can_end_;  // [places, nodes]
  bool is_settled_ = false;                 // more places give what the last ones gave
};

}  // namespace volley
