#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/decode/constraint.h"
#include "text/constraint/byte_automaton.h"
#include "text/tokenizer/tokenizer.h"

namespace volley::text {

// The tokens of a vocabulary whose bytes an automaton takes. A token may be part of a character or many
// characters; special tokens and those without bytes may never come. Which tokens may follow a state is found
// by walking a trie of the vocabulary when it is asked for, and kept.
class TokenConstraint : public Constraint {
 public:
  static constexpr int64_t kMaxCacheBytes = int64_t{256} << 20;

  TokenConstraint(std::shared_ptr<const ByteAutomaton> automaton, TokenizerPtr tokenizer);

  State start() const override { return start_; }
  State next(State state, int32_t token) const override;
  bool accepts(State state) const override { return automaton_->accepts(automaton_state(state)); }
  std::shared_ptr<const TokenSet> allowed(State state) const override;
  // The longest token of what must come, as far as there is no choice of bytes: a model mostly says as many
  // of them at once as a token has.
  int32_t foreseen(State state) const override;

 private:
  // A byte behind those of its ancestors; nodes stand in preorder.
  struct TrieNode {
    uint8_t byte = 0;
    int32_t depth = 0;                        // bytes to here
    int32_t end = 0;                          // behind its last descendant
    int32_t first_token = 0, last_token = 0;  // in trie_tokens_: those that end here
  };

  // The start is a state of its own: a vocabulary may drop a space there.
  ByteAutomaton::State automaton_state(State state) const {
    return state == start_ ? automaton_->start() : state;
  }
  std::string_view bytes_of(State state, int32_t token) const;
  void build_trie();
  TokenSet walk(ByteAutomaton::State state) const;

  std::shared_ptr<const ByteAutomaton> automaton_;
  TokenizerPtr tokenizer_;
  State start_;
  std::vector<bool> is_spelled_;  // by token: it has bytes and is not special
  std::vector<TrieNode> trie_;
  std::vector<int32_t> trie_tokens_;
  int32_t deepest_ = 0;

  mutable std::mutex mutex_;
  mutable std::unordered_map<State, std::shared_ptr<const TokenSet>> cache_;
};

}  // namespace volley::text
