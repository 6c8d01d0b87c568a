#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz_target.h"
#include "text/constraint/byte_automaton.h"

namespace volley::fuzz {

// A message of one line.
inline void check_fault(const Fault& fault) {
  require(!fault.message.empty() && fault.message.find('\n') == std::string::npos);
}

// One of the shortest texts that lead to an accepting state from `state`, which there must be: walked from
// the end of the last byte's range, so that characters of many bytes come, too.
inline std::string way_to_match(const text::ByteAutomaton& automaton, text::ByteAutomaton::State state) {
  struct Step {
    text::ByteAutomaton::State from;
    char byte;
  };
  std::vector<Step> steps(static_cast<size_t>(automaton.states()), {-2, 0});
  std::vector<text::ByteAutomaton::State> open{state};
  steps[static_cast<size_t>(state)] = {-1, 0};
  for (size_t i = 0; i < open.size(); ++i) {
    if (automaton.accepts(open[i])) {
      std::string text;
      for (auto at = open[i]; steps[static_cast<size_t>(at)].from >= 0;
           at = steps[static_cast<size_t>(at)].from)
        text.push_back(steps[static_cast<size_t>(at)].byte);
      std::ranges::reverse(text);
      return text;
    }
    for (int byte = 255; byte >= 0; --byte) {
      const auto next = automaton.next(open[i], static_cast<unsigned char>(byte));
      if (next == text::ByteAutomaton::kBroken || steps[static_cast<size_t>(next)].from != -2) continue;
      steps[static_cast<size_t>(next)] = {open[i], static_cast<char>(byte)};
      open.push_back(next);
    }
  }
  require(false);  // a state that leads nowhere
  return {};
}

// Calls `check` with some texts that the automaton matches.
template <typename Check>
void check_matches(const text::ByteAutomaton& automaton, const Check& check) {
  std::string prefix;
  auto state = automaton.start();
  for (int i = 0; i < 8; ++i) {
    const std::string whole = prefix + way_to_match(automaton, state);
    require(automaton.matches(whole));
    check(whole);
    // One byte further, each time another of those that may come.
    int byte = (i * 37) % 256, tried = 0;
    while (tried < 256 &&
           automaton.next(state, static_cast<unsigned char>(byte)) == text::ByteAutomaton::kBroken) {
      byte = (byte + 1) % 256;
      ++tried;
    }
    if (tried == 256) return;
    prefix += static_cast<char>(byte);
    state = automaton.next(state, static_cast<unsigned char>(byte));
  }
}

}  // namespace volley::fuzz
