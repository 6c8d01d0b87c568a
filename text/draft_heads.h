#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/nn/draft_heads.h"
#include "core/nn/layers.h"

namespace volley::text {

enum class HeadsFamily : uint8_t { kMedusa, kHydra };

// What a checkpoint of draft heads holds, as its tensors' names and shapes say it.
struct HeadsConfig {
  HeadsFamily family = HeadsFamily::kMedusa;
  bool is_chained = false;  // heads read the tokens before the one they guess; Hydra's usual form
  std::string prefix;       // before all names
  int64_t heads = 0;
  int64_t layers = 0;  // of each head, before its output layer
  // Target's token of each candidate, increasing; empty: all of the vocabulary.
  std::vector<int32_t> target_ids;

  // Names of a block's parts, "NAME.linear", and of a head's output layer.
  std::string block(int64_t head, int64_t layer) const;
  std::string output(int64_t head) const;
};

// Finds out what `source` holds. Throws Error naming the file if that is no draft heads, or such as are not
// supported, and the tensor that is impossible.
HeadsConfig recognise_heads(const WeightSource& source, int64_t vocab_size);

// Medusa's and Hydra's heads: each is residual blocks, x + silu(W x + b), and an output layer of its own. A
// chained head's first block reads [hidden; E(root); E(guess 1); ...], E the target's embedding, and has a
// product in place of the bare x.
class ResidualHeads : public DraftHeads {
 public:
  // Of the model that they were trained on. `embedding` must outlive the heads.
  struct Target {
    int64_t vocab_size = 0;
    int64_t dim = 0;
    const Embedding* embedding = nullptr;  // [vocab, dim]; read by chained heads only
  };
  // Throws Error when a tensor is missing, unexpected or of another shape.
  ResidualHeads(HeadsConfig config, const Target& target, WeightLoader loader);

  const DraftHeadsTraits& traits() const override { return traits_; }
  void logits(const DraftHeadsInputs& in, Tensor out) const override;

 private:
  struct Head {
    std::vector<Linear> blocks;      // [dim, dim]; of chained heads the first [dim, (level + 2) dim]
    std::optional<Linear> shortcut;  // [dim, (level + 2) dim] in place of the first block's bare x
    Linear output;                   // [candidates, dim]
  };

  DraftHeadsTraits traits_;
  const Embedding* embedding_;
  std::vector<Head> heads_;
};

}  // namespace volley::text
