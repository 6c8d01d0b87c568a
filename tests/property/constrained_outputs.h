#pragma once

// What tests of methods that fill hidden places under a constraint ask of their outputs.

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/decode/generation.h"
#include "tests/support/table_constraint.h"

namespace volley::test {

// Whether some output of up to `length` tokens (exactly so many, where nothing stops it) keeps it.
inline bool is_possible(const TableConstraint& table, std::span<const int32_t> stops, int32_t mask,
                        int64_t length) {
  std::vector<Constraint::State> reached{table.start()};
  for (int64_t i = 0;; ++i) {
    const bool is_whole =
        std::ranges::any_of(reached, [&](Constraint::State state) { return table.accepts(state); });
    if (is_whole && (i == length || !stops.empty())) return true;
    if (i == length) return false;
    std::vector<Constraint::State> next;
    for (const auto& [from, to] : table.transitions) {
      if (from.second == mask || std::ranges::count(stops, from.second) > 0) continue;
      if (std::ranges::count(reached, from.first) > 0 && std::ranges::count(next, to) == 0)
        next.push_back(to);
    }
    reached = std::move(next);
  }
}

// Nothing wrong: an empty string.
inline std::string fault_of(const Generation& one, const TableConstraint& table,
                            const GenerationOutput& output) {
  Constraint::State state = table.start();
  for (size_t i = 0; i < output.tokens.size(); ++i) {
    const int32_t token = output.tokens[i];
    if (token == one.mask_token) return "the mask is no token";
    if (std::ranges::count(one.stop_tokens, token) > 0) {
      if (i + 1 != output.tokens.size()) return "something stands behind a stop token";
      break;
    }
    state = table.next(state, token);
    if (state == Constraint::kBroken) return "token " + std::to_string(i) + " may not come";
  }
  if (!table.accepts(state)) return "the output is not whole";
  return output.is_whole && output.finished ? "" : "the output says another thing";
}

// All tokens may come, any number of them.
inline std::shared_ptr<TableConstraint> anything(int64_t vocab) {
  auto all = std::make_shared<TableConstraint>();
  all->vocab = vocab;
  all->accepting = {0};
  for (int32_t token = 0; token < vocab; ++token) all->transitions[{0, token}] = 0;
  return all;
}

// `tokens` in that order and nothing else.
inline std::shared_ptr<TableConstraint> one_word(std::span<const int32_t> tokens) {
  auto word = std::make_shared<TableConstraint>();
  for (Constraint::State state = 0; state < std::ssize(tokens); ++state)
    word->transitions[{state, tokens[static_cast<size_t>(state)]}] = state + 1;
  word->accepting = {static_cast<Constraint::State>(std::ssize(tokens))};
  return word;
}

}  // namespace volley::test
