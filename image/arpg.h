#pragma once

#include <string>
#include <vector>

#include "core/io/json.h"
#include "core/nn/layers.h"
#include "image/caption_projection.h"
#include "image/checkpoint.h"

namespace volley::image {

// Sizes of an ARPG transformer, named as in the authors' ModelArgs.
struct ArpgConfig {
  int64_t dim = 0;
  int64_t n_layer = 0;  // both passes together: one half each
  int64_t n_head = 0;
  int64_t vocab_size = 0;
  Condition condition = Condition::kClass;
  int64_t num_classes = 0;  // c2i
  int64_t caption_dim = 0;  // t2i
  int64_t block_size = 0;   // grid cells
  int64_t grid_side = 0;    // its square root
  float norm_eps = 1e-5f;
  float rope_base = 10000.0f;
};

// Reads config.json's object; `path` is for messages. Throws Error on missing or impossible values.
ArpgConfig parse_arpg_config(const nlohmann::json& config, const std::string& path);
// Sizes of a published checkpoint: from its tensors, except for the grid. Throws Error for sizes that were
// not published and of which nothing is stated.
ArpgConfig infer_arpg_config(const WeightSource& weights, int64_t block_size, const StatedSizes& stated = {});

// ARPG: predicts the codes of an image grid in any order, many at once. Content rows (class token, known
// codes) run the first half of the layers and leave keys and values; query rows ask for the code of their
// cell in the second half, see all content and not each other. Only query rows have logits.
//
// Token ids: codes, the mask, then (c2i) classes, the null class. The authors' models are all c2i; a t2i one
// has one row of text features in the class's place, projected as LlamaGen does. Positions are grid cells,
// see grid_transformer.h.
class Arpg : public StepModel {
 public:
  // Throws Error when a tensor is missing, unexpected or of another shape.
  Arpg(ArpgConfig config, WeightLoader loader);

  const ArpgConfig& config() const { return config_; }
  const ModelTraits& traits() const override { return traits_; }
  void step(const StepInputs& in, const StepOutputs& out) const override;
  const NormedHead* head() const override { return &head_; }
  // Row 0 of a sequence is the condition, row 1 + c stands at cell c.
  std::array<int32_t, 3> position(int64_t index) const override;

  int32_t mask_token() const { return static_cast<int32_t>(config_.vocab_size); }
  // Token ids of the condition (c2i).
  int32_t class_token(int64_t label) const { return static_cast<int32_t>(config_.vocab_size + 1 + label); }
  int32_t null_class_token() const { return class_token(config_.num_classes); }
  // What makes the condition row of text features (t2i).
  const CaptionProjection& caption() const { return caption_; }

 private:
  struct SelfDecoder {
    RmsNorm attn_norm;
    SelfAttention attn;
    RmsNorm ffn_norm;
    SwiGlu ffn;
  };
  struct CrossDecoder {
    RmsNorm attn_norm;
    QueryAttention attn;
    RmsNorm ffn_norm;
    SwiGlu ffn;
  };

  SwiGlu load_ffn(WeightLoader& loader, const std::string& prefix) const;

  ArpgConfig config_;
  AttentionShape attention_;
  ModelTraits traits_;
  RopeTable rope_;
  Weight embeddings_;  // [vocab + 1, dim]; c2i: [vocab + 1 + classes + 2, dim]
  CaptionProjection caption_;
  std::vector<SelfDecoder> self_dec_;
  RmsNorm layers_norm_;
  SharedKeysValues layers_;  // of all cross layers
  std::vector<CrossDecoder> cross_dec_;
  NormedHead head_;  // [vocab, dim]
};

}  // namespace volley::image
