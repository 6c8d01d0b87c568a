#include "text/constraint/token_constraint.h"

#include <algorithm>
#include <utility>

namespace volley::text {

TokenConstraint::TokenConstraint(std::shared_ptr<const ByteAutomaton> automaton, TokenizerPtr tokenizer)
    : automaton_(std::move(automaton)),
      tokenizer_(std::move(tokenizer)),
      start_(static_cast<State>(automaton_->states())) {
  const SpecialIds& ids = tokenizer_->special_ids();
  is_spelled_.resize(static_cast<size_t>(tokenizer_->vocab_size()));
  for (int32_t token = 0; token < tokenizer_->vocab_size(); ++token) {
    const bool is_special = tokenizer_->is_special(token) || token == ids.bos || token == ids.eos ||
                            token == ids.unk || token == ids.pad;
    is_spelled_[static_cast<size_t>(token)] = !is_special && !tokenizer_->token_bytes(token).empty();
  }
  build_trie();
}

void TokenConstraint::build_trie() {
  for (int32_t token = 0; token < tokenizer_->vocab_size(); ++token) {
    if (is_spelled_[static_cast<size_t>(token)]) trie_tokens_.push_back(token);
  }
  const auto bytes = [&](int32_t token) { return tokenizer_->token_bytes(token); };
  std::ranges::stable_sort(trie_tokens_, {}, bytes);
  std::vector<int32_t> open;  // nodes from the root to the last token's end
  const auto close = [&](size_t depth) {
    for (; open.size() > depth; open.pop_back())
      trie_[static_cast<size_t>(open.back())].end = static_cast<int32_t>(trie_.size());
  };
  std::string_view last;
  for (size_t i = 0; i < trie_tokens_.size(); ++i) {
    const std::string_view spelled = bytes(trie_tokens_[i]);
    const auto shared = static_cast<size_t>(std::ranges::mismatch(last, spelled).in2 - spelled.begin());
    close(shared);
    for (size_t d = shared; d < spelled.size(); ++d) {
      open.push_back(static_cast<int32_t>(trie_.size()));
      trie_.push_back({.byte = static_cast<uint8_t>(spelled[d]),
                       .depth = static_cast<int32_t>(d + 1),
                       .first_token = static_cast<int32_t>(i),
                       .last_token = static_cast<int32_t>(i)});
    }
    trie_[static_cast<size_t>(open.back())].last_token = static_cast<int32_t>(i + 1);
    deepest_ = std::max(deepest_, static_cast<int32_t>(spelled.size()));
    last = spelled;
  }
  close(0);
}

std::string_view TokenConstraint::bytes_of(State state, int32_t token) const {
  if (token < 0 || std::ssize(is_spelled_) <= token || !is_spelled_[static_cast<size_t>(token)]) return {};
  if (state != start_) return tokenizer_->token_bytes(token);
  DecodeState beginning = tokenizer_->begin_text();
  return tokenizer_->next_bytes(token, beginning);
}

Constraint::State TokenConstraint::next(State state, int32_t token) const {
  if (state == kBroken) return kBroken;
  const std::string_view bytes = bytes_of(state, token);
  // A token that adds nothing could come for ever.
  return bytes.empty() ? kBroken : automaton_->next(automaton_state(state), bytes);
}

TokenSet TokenConstraint::walk(ByteAutomaton::State state) const {
  TokenSet allowed(std::ssize(is_spelled_));
  std::vector<ByteAutomaton::State> states(static_cast<size_t>(deepest_) + 1);  // by depth
  states[0] = state;
  for (size_t n = 0; n < trie_.size();) {
    const TrieNode& node = trie_[n];
    const auto depth = static_cast<size_t>(node.depth);
    states[depth] = automaton_->next(states[depth - 1], node.byte);
    if (states[depth] == ByteAutomaton::kBroken) {
      n = static_cast<size_t>(node.end);
      continue;
    }
    for (int32_t i = node.first_token; i < node.last_token; ++i)
      allowed.insert(trie_tokens_[static_cast<size_t>(i)]);
    ++n;
  }
  return allowed;
}

std::shared_ptr<const TokenSet> TokenConstraint::allowed(State state) const {
  const std::scoped_lock lock(mutex_);
  std::shared_ptr<const TokenSet>& known = cache_[state];
  if (known) return known;
  TokenSet made(std::ssize(is_spelled_));
  if (state == start_) {
    for (int32_t token = 0; token < std::ssize(is_spelled_); ++token) {
      if (next(state, token) != kBroken) made.insert(token);
    }
  } else {
    made = walk(state);
  }
  known = std::make_shared<const TokenSet>(std::move(made));
  const std::shared_ptr<const TokenSet> result = known;
  if (static_cast<int64_t>(cache_.size()) * result->bytes() > kMaxCacheBytes) cache_.clear();
  return result;
}

int32_t TokenConstraint::foreseen(State state) const {
  if (state == kBroken) return -1;
  const std::string forced = automaton_->forced(automaton_state(state), static_cast<size_t>(deepest_));
  if (forced.empty()) return -1;
  int32_t longest = -1;
  size_t length = 0;
  allowed(state)->for_each([&](int32_t token) {
    const std::string_view bytes = bytes_of(state, token);
    if (bytes.size() <= length || !forced.starts_with(bytes)) return;
    longest = token;
    length = bytes.size();
  });
  return longest;
}

}  // namespace volley::text
