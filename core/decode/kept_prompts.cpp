#include "core/decode/kept_prompts.h"

#include <algorithm>
#include <iterator>

#include "core/base/error.h"

namespace volley {
namespace {

// What the rows are is all that the prompt says.
bool is_plain(const Prompt& prompt) {
  return prompt.embeddings.empty() && prompt.memory == SequenceId::kNone;
}

int64_t whole_chunks(int64_t rows) {
  return rows / kPromptChunk * kPromptChunk;
}

// Rows of whole chunks that both begin with.
int64_t common(std::span<const StepRow> a, std::span<const StepRow> b) {
  return whole_chunks(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace

int64_t common_chunks(std::span<const Prompt> prompts) {
  if (prompts.empty() || !std::ranges::all_of(prompts, is_plain)) return 0;
  int64_t rows = std::ssize(prompts.front().rows);
  for (const Prompt& prompt : prompts) {
    rows = std::min(
        {rows, common(prompts.front().rows, prompt.rows), whole_chunks(std::ssize(prompt.rows) - 1)});
  }
  return rows;
}

KeptPrompts::Match KeptPrompts::best_match(const Prompt& prompt) const {
  Match best{.kept = beginnings_.end()};
  if (!is_plain(prompt)) return best;
  const auto rows = std::span(prompt.rows).first(prompt.rows.size() - 1);
  for (auto kept = beginnings_.begin(); kept != beginnings_.end(); ++kept) {
    if (const int64_t length = common(kept->rows, rows); length > best.rows) best = {kept, length};
  }
  return best;
}

int64_t KeptPrompts::longest(const Prompt& prompt) const {
  return best_match(prompt).rows;
}

int64_t KeptPrompts::take(const Prompt& prompt) {
  const Match best = best_match(prompt);
  if (best.rows == 0) return 0;
  cache_.share(best.kept->sequence.id(), best.rows, prompt.sequence);
  beginnings_.splice(beginnings_.begin(), beginnings_, best.kept);
  return best.rows;
}

void KeptPrompts::keep(const Prompt& prompt) {
  const int64_t length = whole_chunks(std::ssize(prompt.rows));
  if (limit_ == 0 || length == 0 || !is_plain(prompt)) return;
  VOLLEY_ASSERT(cache_.length(prompt.sequence) >= length);
  const auto rows = std::span(prompt.rows).first(static_cast<size_t>(length));
  for (const Beginning& kept : beginnings_) {
    if (common(kept.rows, rows) == length) return;  // it is there
  }
  std::erase_if(beginnings_,
                [&](const Beginning& kept) { return common(kept.rows, rows) == std::ssize(kept.rows); });
  if (std::ssize(beginnings_) == limit_) forget_oldest();
  beginnings_.push_front({.rows = {rows.begin(), rows.end()}, .sequence = SequenceLease(cache_)});
  cache_.share(prompt.sequence, length, beginnings_.front().sequence.id());
}

bool KeptPrompts::forget_oldest() {
  if (beginnings_.empty()) return false;
  beginnings_.pop_back();
  return true;
}

}  // namespace volley
