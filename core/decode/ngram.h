#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/decode/acceptance.h"
#include "core/decode/draft_pool.h"
#include "core/decode/observer.h"
#include "core/decode/proposer.h"

namespace volley {

// Guesses the next token from what followed earlier occurrences of the last tokens, in their own text or in
// those of a pool.
// Ref: Saxena, "Prompt lookup decoding" (the own text).
class NGramSource : public CandidateSource {
 public:
  struct Options {
    int64_t longest = 3;  // tokens of context to match, tried from the longest
    int64_t shortest = 1;
    const DraftPool* pool = nullptr;  // null: there is none
  };
  explicit NGramSource(const Options& options) : options_(options) {}

  std::string_view source() const override { return "n-gram"; }
  // Longer matches first; of one length the own text's first, later occurrences first.
  std::vector<int32_t> candidates(std::span<const int32_t> path, int64_t count) override;
  // By the length of the longest match, and whose it is.
  int64_t grade(std::span<const int32_t> path) override;
  // Tokens that the path's end and an earlier place of the own text have in common, at most `longest`.
  int64_t longest_match(std::span<const int32_t> path) const;

 private:
  // Of the pool, longest first.
  std::vector<DraftPool::Match> pooled(std::span<const int32_t> path) const;

  Options options_;
};

inline constexpr int64_t kMaxPool = int64_t{1} << 24;  // tokens

// The pool that a method with so many tokens of it drafts from: the caller's, or for one run `own`; null for
// none.
DraftPool* pool_for(int64_t tokens, const DecodeControl& control, DraftPool& own);
// Throws Error kUsage for a pool under the rejection rule, whose drafts may not know the noise: another text
// of the same seed does.
void require_no_pool(const std::string& decoder, int64_t tokens, AcceptanceKind acceptance);

// Fills a chain from the first candidates of a source, and where a constraint leaves no choice with what it
// foresees.
class ChainProposer : public Proposer {
 public:
  ChainProposer(CandidateSource& candidates, int64_t length) : candidates_(candidates), length_(length) {}
  std::string_view source() const override { return candidates_.source(); }
  int64_t grade(const ProposalContext& context) override;
  DraftTree propose(const ProposalContext& context) override;

 private:
  CandidateSource& candidates_;
  int64_t length_;
};

// Fills a tree of fixed shape: `widths[d]` candidates below every node of depth d, of which one is what a
// constraint foresees.
class TreeProposer : public Proposer {
 public:
  TreeProposer(CandidateSource& candidates, std::vector<int64_t> widths)
      : candidates_(candidates), widths_(std::move(widths)) {}
  std::string_view source() const override { return candidates_.source(); }
  DraftTree propose(const ProposalContext& context) override;

 private:
  CandidateSource& candidates_;
  std::vector<int64_t> widths_;
};

}  // namespace volley
