#pragma once

// Draft heads for tests: small random networks, and heads that know what will come.

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/decode/proposer.h"
#include "core/nn/draft_heads.h"
#include "tests/support/toy_models.h"
#include "text/draft_heads.h"

namespace volley::test {

struct ToyHeadsSizes {
  text::HeadsFamily family = text::HeadsFamily::kMedusa;
  int64_t heads = 3;
  int64_t layers = 1;
  int64_t dim = 16;
  int64_t vocab = 16;
  std::vector<int32_t> target_ids;  // empty: all
  float spread = 0.6f;              // of the weights
};

// Random weights under the names of the published checkpoints, without `d2t`.
MemoryWeights toy_heads_weights(uint64_t seed, const ToyHeadsSizes& sizes = {});

// Heads of such weights for a toy llama; they read its embedding.
std::unique_ptr<DraftHeads> make_toy_heads(const Backend& backend, uint64_t seed, const StepModel& target,
                                           const ToyHeadsSizes& sizes = {});

// Proposes nothing, and keeps the target's hidden rows: row i of a generation chose its output token i.
class HiddenRecorder : public Proposer {
 public:
  std::string_view source() const override { return "test"; }
  std::optional<int32_t> wanted_hidden_layer() const override { return kLastNorm; }
  void begin(int64_t generation, const Generation& request) override;
  DraftTree propose(const ProposalContext& context) override;
  void observe(const Verification& verification) override;
  const std::vector<std::vector<float>>& rows(int64_t generation) const {
    return rows_[static_cast<size_t>(generation)];
  }

 private:
  std::vector<std::vector<std::vector<float>>> rows_;
};

// Heads that know the output by the hidden row alone, to the bit: they are right only if each draft begins
// from the row that it should.
class OracleHeads : public DraftHeads {
 public:
  struct Options {
    int64_t heads = 4;
    bool is_chained = false;
    double right = 1.0;  // share of the guesses that are right; the others are one token off
    uint64_t seed = 0;
  };
  OracleHeads(const ModelTraits& target, const Options& options);

  // Row i of `hidden` chose token i of `tokens`.
  void learn(std::span<const std::vector<float>> hidden, const std::vector<int32_t>& tokens);

  const DraftHeadsTraits& traits() const override { return traits_; }
  void logits(const DraftHeadsInputs& in, Tensor out) const override;
  // Paths asked for whose hidden row, or whose root, is none of those learnt.
  int64_t misses() const { return misses_; }

 private:
  std::vector<float> guess(std::span<const float> hidden, std::span<const int32_t> path, int64_t level) const;

  Options options_;
  DraftHeadsTraits traits_;
  std::map<std::vector<float>, std::vector<int32_t>> known_;  // tokens from the root on
  mutable int64_t misses_ = 0;
};

}  // namespace volley::test
