#pragma once

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "core/decode/constraint.h"
#include "tests/support/toy_models.h"

namespace volley::test {

// A constraint that is a table: what stands in it may come, nothing else.
class TableConstraint : public Constraint {
 public:
  // (state, token) -> state; state 0 is the start.
  std::map<std::pair<State, int32_t>, State> transitions;
  std::vector<State> accepting;
  int64_t vocab = 16;

  State start() const override { return 0; }
  State next(State state, int32_t token) const override {
    const auto found = transitions.find({state, token});
    return found == transitions.end() ? kBroken : found->second;
  }
  bool accepts(State state) const override {
    return std::find(accepting.begin(), accepting.end(), state) != accepting.end();
  }
  std::shared_ptr<const TokenSet> allowed(State state) const override {
    const auto set = std::make_shared<TokenSet>(vocab);
    for (int32_t token = 0; token < vocab; ++token) {
      if (next(state, token) != kBroken) set->insert(token);
    }
    return set;
  }

  // Every state has a way on, and some accept.
  static std::shared_ptr<TableConstraint> random(uint64_t seed, int64_t states = 6, double share = 0.3) {
    TestRandom random(seed + 77);
    auto made = std::make_shared<TableConstraint>();
    for (State state = 0; state < states; ++state) {
      if (random.uniform() < 0.4f) made->accepting.push_back(state);
      const auto forced = static_cast<int32_t>(random.below(made->vocab));
      for (int32_t token = 0; token < made->vocab; ++token) {
        const auto to = static_cast<State>(random.below(states));
        if (token == forced || random.uniform() < share) made->transitions[{state, token}] = to;
      }
    }
    return made;
  }
};

}  // namespace volley::test
