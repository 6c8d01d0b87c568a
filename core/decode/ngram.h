#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/decode/proposer.h"

namespace volley {

// Guesses the next token from what followed earlier occurrences of the last tokens.
// Ref: Saxena, "Prompt lookup decoding".
class NGramSource : public CandidateSource {
 public:
  struct Options {
    int64_t longest = 3;  // tokens of context to match, tried from the longest
    int64_t shortest = 1;
  };
  explicit NGramSource(const Options& options) : options_(options) {}

  std::string_view source() const override { return "n-gram"; }
  // Longer matches first, later occurrences first.
  std::vector<int32_t> candidates(std::span<const int32_t> path, int64_t count) override;
  // By the length of the longest match.
  int64_t grade(std::span<const int32_t> path) override;

 private:
  Options options_;
};

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
