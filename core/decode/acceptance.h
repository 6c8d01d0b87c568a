#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/decode/draft_tree.h"
#include "core/decode/logits_chain.h"
#include "core/decode/session.h"

namespace volley {

// Numbers in (0, 1) for accept/reject tests. Tests replay recorded ones.
class UniformSource {
 public:
  virtual ~UniformSource() = default;
  // The `attempt`-th number for the decision at output index `position`.
  virtual float next(const OutputPlace& place, int64_t position, int64_t attempt) = 0;
};

// The numbers of a generation's own noise.
class NoiseUniforms : public UniformSource {
 public:
  float next(const OutputPlace& place, int64_t position, int64_t attempt) override;
};

enum class AcceptanceKind : uint8_t {
  // A node is right when it equals the token the target itself chooses there, noise included: the output is
  // that of
  // sequential decoding, token for token.
  kCoupled,
  // Speculative sampling: accept with probability p/q, else draw from the residual. The output has the
  // target's
  // distribution. Greedy decoding has only one right token, so this becomes kCoupled at temperature 0.
  // Ref: Leviathan et al. 2023; Miao et al., SpecInfer (several candidates); deterministic drafts have q = 1.
  kRejection,
  // Whatever the target calls likely enough for how sure it is. Lossy. This, too, becomes kCoupled at
  // temperature 0. Ref: Cai et al., "Medusa"
  kTypical,
};

// A token of probability p is typical if p > min(epsilon, alpha exp(-entropy)). The defaults are those of
// Medusa's code.
struct TypicalRule {
  float epsilon = 0.3f;
  float alpha = 0.09f;
};

// What the target says about a draft: row 0 is the root, row i + 1 node i.
struct TargetView {
  std::span<const int32_t> sampled;     // [1 + nodes]
  std::span<const float> distribution;  // [1 + nodes, vocab] for kRejection and kTypical
  std::span<const float> entropy;       // [1 + nodes] of it, in nats, for kTypical
  int64_t vocab_size = 0;
};

struct Decision {
  std::vector<int32_t> accepted;  // nodes from the root down
  int32_t next_token = 0;         // follows the last of them
};

// `place` is that of the token behind the root.
Decision accept_coupled(const DraftTree& draft, const TargetView& target);
Decision accept_rejection(const DraftTree& draft, const TargetView& target, const OutputPlace& place,
                          UniformSource& uniforms);
// Takes the longest path of typical tokens; of several the one with the largest product of probabilities,
// then the first. What follows it is the target's own choice.
Decision accept_typical(const DraftTree& draft, const TargetView& target, const TypicalRule& rule);

}  // namespace volley
