#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace volley {

// A set of token ids; ids beyond its size are not in it.
class TokenSet {
 public:
  explicit TokenSet(int64_t size = 0) : words_(static_cast<size_t>((size + 63) / 64)) {}

  // `token` lies within the size.
  void insert(int32_t token) { words_[static_cast<size_t>(token) / 64] |= uint64_t{1} << token % 64; }
  bool contains(int32_t token) const {
    const auto word = static_cast<size_t>(token) / 64;
    return token >= 0 && word < words_.size() && (words_[word] >> token % 64 & 1) != 0;
  }
  bool empty() const { return count() == 0; }
  int64_t count() const;
  // Of all words together.
  int64_t bytes() const { return static_cast<int64_t>(words_.size() * sizeof(uint64_t)); }
  // Calls `visit(token)` in increasing order.
  template <typename Visit>
  void for_each(const Visit& visit) const {
    for (size_t w = 0; w < words_.size(); ++w) {
      for (uint64_t rest = words_[w]; rest != 0; rest &= rest - 1)
        visit(static_cast<int32_t>(w * 64) + __builtin_ctzll(rest));
    }
  }

 private:
  std::vector<uint64_t> words_;
};

// What an output may be: an automaton over token ids. A state is a number, so that copying one, going back to
// one and following every branch of a tree cost nothing. Tokens that end an output (stop tokens) are not its
// matter: they may come where it accepts, and nowhere else. Const, and shared by generations and threads.
class Constraint {
 public:
  using State = int32_t;
  static constexpr State kBroken = -1;  // no way to go on

  virtual ~Constraint() = default;
  virtual State start() const = 0;
  // The state behind `token`; kBroken if it may not come, or if `state` is broken. Any token id.
  virtual State next(State state, int32_t token) const = 0;
  // Whether what led to this state is whole.
  virtual bool accepts(State state) const = 0;
  // The tokens that `next` does not call broken.
  virtual std::shared_ptr<const TokenSet> allowed(State state) const = 0;
  // A token to be guessed because hardly another may come: the only one, unless the vocabulary knows of
  // others that say less of the same. -1 where there is a choice.
  virtual int32_t foreseen(State state) const;
};

// Where one output is in its constraint, if it has any.
class ConstraintCursor {
 public:
  ConstraintCursor() = default;
  // `stop_tokens` must outlive the cursor, as must `constraint`; null: everything may come.
  ConstraintCursor(const Constraint* constraint, std::span<const int32_t> stop_tokens);

  explicit operator bool() const { return constraint_ != nullptr; }
  // Whether `token` may come here; of stop tokens, too. True without a constraint.
  bool allows(int32_t token) const;
  // Behind `token`. Broken behind a stop token: nothing follows it.
  ConstraintCursor after(int32_t token) const;
  // Whether what came so far is whole. True without a constraint.
  bool accepts() const;
  bool is_broken() const { return constraint_ != nullptr && state_ == Constraint::kBroken; }
  // Constraint::foreseen; -1 where a stop token may come, too, and without a constraint.
  int32_t foreseen() const;
  // Whole, and nothing may follow but a stop token. False without a constraint.
  bool is_complete() const;
  Constraint::State state() const { return state_; }

  // What may be chosen here, in logits: adds zero or minus infinity for each token to `bias`. Returns false,
  // and adds nothing, where nothing may.
  bool add_bias(int64_t vocab, std::vector<float>& bias) const;

 private:
  bool is_stop(int32_t token) const;

  const Constraint* constraint_ = nullptr;
  std::span<const int32_t> stop_tokens_;
  Constraint::State state_ = Constraint::kBroken;
};

}  // namespace volley
