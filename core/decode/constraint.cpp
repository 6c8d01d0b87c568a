#include "core/decode/constraint.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace volley {

int64_t TokenSet::count() const {
  int64_t count = 0;
  for (uint64_t word : words_) count += std::popcount(word);
  return count;
}

int32_t Constraint::foreseen(State state) const {
  const auto tokens = allowed(state);
  int32_t only = -1;
  if (tokens->count() == 1) tokens->for_each([&](int32_t token) { only = token; });
  return only;
}

ConstraintCursor::ConstraintCursor(const Constraint* constraint, std::span<const int32_t> stop_tokens)
    : constraint_(constraint),
      stop_tokens_(stop_tokens),
      state_(constraint != nullptr ? constraint->start() : Constraint::kBroken) {}

bool ConstraintCursor::is_stop(int32_t token) const {
  return std::ranges::find(stop_tokens_, token) != stop_tokens_.end();
}

bool ConstraintCursor::allows(int32_t token) const {
  if (constraint_ == nullptr) return true;
  if (is_broken()) return false;
  return is_stop(token) ? constraint_->accepts(state_)
                        : constraint_->next(state_, token) != Constraint::kBroken;
}

ConstraintCursor ConstraintCursor::after(int32_t token) const {
  ConstraintCursor next = *this;
  if (constraint_ == nullptr || is_broken()) return next;
  next.state_ = is_stop(token) ? Constraint::kBroken : constraint_->next(state_, token);
  return next;
}

bool ConstraintCursor::accepts() const {
  return constraint_ == nullptr || (!is_broken() && constraint_->accepts(state_));
}

int32_t ConstraintCursor::foreseen() const {
  if (constraint_ == nullptr || is_broken() || constraint_->accepts(state_)) return -1;
  return constraint_->foreseen(state_);
}

bool ConstraintCursor::is_complete() const {
  if (constraint_ == nullptr || !accepts()) return false;
  const auto allowed = constraint_->allowed(state_);
  const auto is_allowed = [&](int32_t token) { return allowed->contains(token); };
  // Where no stop token is content, too, which is always, nobody looks at every token.
  if (std::ranges::none_of(stop_tokens_, is_allowed)) return allowed->empty();
  bool goes_on = false;
  allowed->for_each([&](int32_t token) { goes_on = goes_on || !is_stop(token); });
  return !goes_on;
}

bool ConstraintCursor::add_bias(int64_t vocab, std::vector<float>& bias) const {
  if (constraint_ == nullptr || is_broken()) return false;
  const auto begin = static_cast<int64_t>(bias.size());
  bias.resize(bias.size() + static_cast<size_t>(vocab), -std::numeric_limits<float>::infinity());
  float* row = bias.data() + begin;  // [vocab]
  int64_t count = 0;
  constraint_->allowed(state_)->for_each([&](int32_t token) {
    if (token >= vocab) return;
    row[token] = 0.0f;
    ++count;
  });
  const bool may_stop = constraint_->accepts(state_);
  for (const int32_t token : stop_tokens_) {
    if (token < 0 || token >= vocab || (row[token] == 0.0f) == may_stop) continue;
    row[token] = may_stop ? 0.0f : -std::numeric_limits<float>::infinity();
    count += may_stop ? 1 : -1;
  }
  if (count == 0) bias.resize(static_cast<size_t>(begin));
  return count > 0;
}

}  // namespace volley
