#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <vector>

#include "core/nn/step.h"

namespace volley {

// Rows that run together on the prompt path; chunks begin at multiples of it.
inline constexpr int64_t kPromptChunk = 256;

// Rows of a prompt: token ids, or vectors (`embeddings`, in their order).
struct Prompt {
  SequenceId sequence = SequenceId::kNone;
  std::vector<StepRow> rows;
  std::vector<float> embeddings;
  SequenceId memory = SequenceId::kNone;
};

// Rows of whole chunks that all of the prompts begin with, each with at least one row behind them; none of
// prompts with vectors or a memory.
int64_t common_chunks(std::span<const Prompt> prompts);

// Beginnings of prompts that ran, whole chunks of token rows, which stay in the cache for prompts that begin
// alike. A chunk's keys and values depend on nothing but its rows and those before it, so that they are bit
// for bit what they would be again. Pages are shared with whoever uses them.
class KeptPrompts {
 public:
  // Keeps at most `limit`; `cache` has room for so many sequences more, and outlives this.
  KeptPrompts(KvCache& cache, int64_t limit) : cache_(cache), limit_(limit) {}

  // Entries that `take` would give.
  int64_t longest(const Prompt& prompt) const;
  // Gives the prompt's empty sequence the longest kept beginning, and says how many entries it has now. The
  // prompt's last row is left to be run.
  int64_t take(const Prompt& prompt);
  // Keeps the whole chunks of a prompt that ran, in place of those that it continues, or of the one that was
  // used least lately.
  void keep(const Prompt& prompt);
  // False if there is none.
  bool forget_oldest();

 private:
  struct Beginning {
    std::vector<StepRow> rows;
    SequenceLease sequence;
  };

  struct Match {
    std::list<Beginning>::const_iterator kept;
    int64_t rows = 0;
  };
  Match best_match(const Prompt& prompt) const;

  KvCache& cache_;
  int64_t limit_;
  std::list<Beginning> beginnings_;  // the one used last comes first
};

}  // namespace volley
