#include "core/decode/ngram.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/decode/acceptance_rates.h"

namespace volley {
namespace {

// Grades of matches in the own text, by their length, and behind them those of the pool, whose shortest has
// two tokens.
constexpr int64_t kOwnGrades = 4;
constexpr int64_t kPoolGrades = 2;
static_assert(kOwnGrades + kPoolGrades < kDraftGrades);

// What the constraint foresees, if it is a token of the model's.
int32_t foreseen_by(const ConstraintCursor& cursor, const ProposalContext& context) {
  const int32_t token = cursor.foreseen();
  return token < context.vocab_size ? token : -1;
}

}  // namespace

std::vector<DraftPool::Match> NGramSource::pooled(std::span<const int32_t> path) const {
  if (options_.pool == nullptr) return {};
  return options_.pool->matches(path, options_.longest);
}

std::vector<int32_t> NGramSource::candidates(std::span<const int32_t> path, int64_t count) {
  std::vector<int32_t> found;
  const auto size = static_cast<int64_t>(path.size());
  const std::vector<DraftPool::Match> others = pooled(path);
  auto other = others.begin();
  // False once there are enough.
  const auto take = [&](int32_t next) {
    if (std::ranges::count(found, next) == 0) found.push_back(next);
    return std::ssize(found) < count;
  };
  const auto take_pooled = [&](int64_t shortest) {
    for (; other != others.end() && other->length >= shortest; ++other) {
      if (!take(other->next)) return false;
    }
    return true;
  };
  for (int64_t n = std::min(options_.longest, size - 1); n >= options_.shortest; --n) {
    if (!take_pooled(n + 1)) return found;
    const auto suffix = path.last(static_cast<size_t>(n));
    for (int64_t end = size - 1; end >= n; --end) {
      if (!std::ranges::equal(path.subspan(static_cast<size_t>(end - n), static_cast<size_t>(n)), suffix))
        continue;
      if (!take(path[static_cast<size_t>(end)])) return found;
    }
  }
  take_pooled(options_.shortest);
  return found;
}

int64_t NGramSource::longest_match(std::span<const int32_t> path) const {
  const auto size = static_cast<int64_t>(path.size());
  int64_t longest = 0;
  for (int64_t end = size - 1; end > 0 && longest < options_.longest; --end) {
    int64_t n = 0;
    while (n < std::min(end, options_.longest) &&
           path[static_cast<size_t>(end - 1 - n)] == path[static_cast<size_t>(size - 1 - n)])
      ++n;
    longest = std::max(longest, n);
  }
  return longest;
}

int64_t NGramSource::grade(std::span<const int32_t> path) {
  const int64_t longest = longest_match(path);
  const std::vector<DraftPool::Match> others = pooled(path);
  if (!others.empty() && others.front().length > longest)
    return kOwnGrades + std::min(others.front().length + 1 - DraftPool::kShortestMatch, kPoolGrades);
  return longest < options_.shortest ? 0 : std::min(longest, kOwnGrades);
}

DraftPool* pool_for(int64_t tokens, const DecodeControl& control, DraftPool& own) {
  if (tokens == 0) return nullptr;
  DraftPool* pool = control.pool != nullptr ? control.pool : &own;
  pool->set_limit(tokens);
  return pool;
}

void require_no_pool(const std::string& decoder, int64_t tokens, AcceptanceKind acceptance) {
  if (tokens == 0 || acceptance == AcceptanceKind::kCoupled) return;
  throw Error("--decoder " + decoder +
                  ": pool goes with accept=coupled only: what another answer drew by the same seed would be "
                  "drafted",
              ErrorKind::kUsage);
}

int64_t ChainProposer::grade(const ProposalContext& context) {
  if (context.cursor) {
    if (foreseen_by(context.cursor, context) >= 0) return kOwnGrades;
    const std::vector<int32_t> next = candidates_.candidates(context.path, 1);
    if (next.empty() || !context.cursor.allows(next[0])) return 0;
  }
  return candidates_.grade(context.path);
}

DraftTree ChainProposer::propose(const ProposalContext& context) {
  std::vector<int32_t> path(context.path.begin(), context.path.end());
  ConstraintCursor cursor = context.cursor;
  DraftTree draft;
  while (draft.size() < std::min(length_, context.max_depth)) {
    int32_t token = foreseen_by(cursor, context);
    if (token < 0) {
      const std::vector<int32_t> next = candidates_.candidates(path, 1);
      if (next.empty() || !cursor.allows(next[0])) break;
      token = next[0];
    }
    cursor = cursor.after(token);
    draft.add(static_cast<int32_t>(draft.size()) - 1, token);
    path.push_back(token);
  }
  return draft;
}

DraftTree TreeProposer::propose(const ProposalContext& context) {
  DraftTree draft;
  std::vector<int32_t> level{-1};
  const auto depths = std::min(static_cast<int64_t>(widths_.size()), context.max_depth);
  for (int64_t d = 0; d < depths; ++d) {
    std::vector<int32_t> next_level;
    for (int32_t node : level) {
      std::vector<int32_t> tail;
      for (int32_t at = node; at >= 0; at = draft.parents[static_cast<size_t>(at)]) {
        tail.push_back(draft.tokens[static_cast<size_t>(at)]);
      }
      std::vector<int32_t> path(context.path.begin(), context.path.end());
      path.insert(path.end(), tail.rbegin(), tail.rend());
      ConstraintCursor cursor = context.cursor;
      for (auto token = tail.rbegin(); token != tail.rend(); ++token) cursor = cursor.after(*token);
      const int32_t foreseen = foreseen_by(cursor, context);
      if (foreseen >= 0) next_level.push_back(draft.add(node, foreseen));
      const int64_t width = widths_[static_cast<size_t>(d)] - (foreseen >= 0 ? 1 : 0);
      if (width == 0) continue;
      for (int32_t token : candidates_.candidates(path, width)) {
        if (token != foreseen && cursor.allows(token)) next_level.push_back(draft.add(node, token));
      }
    }
    level = std::move(next_level);
  }
  return draft;
}

}  // namespace volley
