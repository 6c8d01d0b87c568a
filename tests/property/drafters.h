#pragma once

// Drafters of known quality for property tests.

#include <cstdint>
#include <vector>

#include "core/decode/proposer.h"
#include "tests/support/toy_models.h"

namespace volley::test {

// Chains or trees whose chain of first children is right with the given probability for each token; other
// nodes are random. `truth` is the output the target will make.
class QualityProposer : public Proposer {
 public:
  struct Options {
    double right = 0.0;    // 0: random drafts, 1: perfect
    int64_t length = 4;    // levels
    int64_t siblings = 1;  // children of each node on the main chain
    uint64_t seed = 0;
  };
  QualityProposer(Options options, std::vector<std::vector<int32_t>> truth)
      : options_(options), truth_(std::move(truth)), random_(options.seed) {}

  std::string_view source() const override { return "test"; }

  DraftTree propose(const ProposalContext& context) override {
    const std::vector<int32_t>& truth = truth_[static_cast<size_t>(context.generation)];
    DraftTree draft;
    int32_t parent = -1;
    for (int64_t d = 0; d < std::min(options_.length, context.max_depth); ++d) {
      const auto index = static_cast<size_t>(context.output_tokens + d);
      const bool is_right = index < truth.size() && random_.uniform() < options_.right;
      auto token = static_cast<int32_t>(is_right ? truth[index] : random_.below(context.vocab_size));
      const int64_t main = random_.below(options_.siblings);
      int32_t next = -1;
      for (int64_t s = 0; s < options_.siblings; ++s) {
        // Distinct siblings: the main token, then its neighbours in the vocabulary.
        const auto other = static_cast<int32_t>((token + 1 + s) % context.vocab_size);
        const int32_t node = draft.add(parent, s == main ? token : other);
        if (s == main) next = node;
      }
      parent = next;
    }
    return draft;
  }

  void observe(const Verification& verification) override {
    accepted_ += static_cast<int64_t>(verification.accepted.size());
    rejected_ += verification.draft.size() - static_cast<int64_t>(verification.accepted.size());
  }

  int64_t accepted() const { return accepted_; }
  int64_t rejected() const { return rejected_; }

 private:
  Options options_;
  std::vector<std::vector<int32_t>> truth_;
  TestRandom random_;
  int64_t accepted_ = 0;
  int64_t rejected_ = 0;
};

}  // namespace volley::test
