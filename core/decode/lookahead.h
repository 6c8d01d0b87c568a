#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/decode/proposer.h"

namespace volley {

struct LookaheadSizes {
  int64_t window = 7;   // W, columns
  int64_t ngram = 5;    // N, tokens of an n-gram, the one that it is found by included; at least 2
  int64_t guesses = 7;  // G, n-grams kept for one token
};

// What followed a token: at most G continuations of N - 1 tokens, latest first.
class NGramPool {
 public:
  explicit NGramPool(const LookaheadSizes& sizes) : sizes_(sizes) {}

  void add(int32_t first, std::span<const int32_t> rest);
  // Adds the n-grams of `path` that end at index `begin` or later.
  void add_path(std::span<const int32_t> path, int64_t begin);
  const std::deque<std::vector<int32_t>>& after(int32_t token) const;

 private:
  LookaheadSizes sizes_;
  std::unordered_map<int32_t, std::deque<std::vector<int32_t>>> pool_;
};

// The window of one generation. Row r, column i stands r + i positions behind the current token, which is
// row 0, column 0. Rows below the first come one a step until there are N - 1.
class LookaheadWindow {
 public:
  // Seed and stream name the noise that picks first guesses.
  LookaheadWindow(const LookaheadSizes& sizes, uint64_t seed, uint32_t stream)
      : sizes_(sizes), seed_(seed), stream_(stream), rows_(1) {}

  // Adds the window's nodes to a draft, none deeper than the context allows.
  void add_to(DraftTree& draft, const ProposalContext& context);
  // Takes what the target said behind the last row: n-grams for the pool, and the next iterate.
  void advance(const Verification& verification, NGramPool& pool);

 private:
  bool is_full() const { return std::ssize(rows_) == sizes_.ngram - 1; }
  // A row still to come takes its place from the first column of those above it.
  int64_t columns() const { return sizes_.window + sizes_.ngram - 1 - std::ssize(rows_); }
  void fill(const ProposalContext& context);
  void drop_columns(int64_t count);

  LookaheadSizes sizes_;
  uint64_t seed_;
  uint32_t stream_;
  std::vector<std::deque<int32_t>> rows_;    // [1 .. N-1][columns]
  std::vector<std::vector<int32_t>> nodes_;  // [rows][columns that run] in the draft of the step in flight
};

// Window and pool of the generations of a batch, which share the pool.
class LookaheadProposer : public Proposer {
 public:
  explicit LookaheadProposer(const LookaheadSizes& sizes) : sizes_(sizes), pool_(sizes) {}

  std::string_view source() const override { return "lookahead"; }
  void begin(int64_t generation, const Generation& request) override;
  DraftTree propose(const ProposalContext& context) override;
  void observe(const Verification& verification) override;

 private:
  struct Progress {
    LookaheadWindow window;
    int64_t pooled = 0;  // tokens of the path whose n-grams are in the pool
  };

  LookaheadSizes sizes_;
  NGramPool pool_;
  std::vector<Progress> progress_;
};

}  // namespace volley
