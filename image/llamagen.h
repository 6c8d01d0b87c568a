#pragma once

#include <string>
#include <vector>

#include "core/io/json.h"
#include "core/nn/layers.h"
#include "image/caption_projection.h"
#include "image/checkpoint.h"

namespace volley::image {

// Sizes of a LlamaGen transformer, named as in the authors' ModelArgs.
struct LlamaGenConfig {
  int64_t dim = 0;
  int64_t n_layer = 0;
  int64_t n_head = 0;
  int64_t n_kv_head = 0;
  int64_t vocab_size = 0;
  int64_t block_size = 0;  // grid cells
  int64_t grid_side = 0;   // its square root
  Condition condition = Condition::kClass;
  int64_t cls_token_num = 1;  // condition rows
  int64_t num_classes = 0;    // c2i
  int64_t caption_dim = 0;    // t2i
  float norm_eps = 1e-5f;
  float rope_base = 10000.0f;
};

// Reads config.json's object; `path` is for messages. Throws Error on missing or impossible values.
LlamaGenConfig parse_llamagen_config(const nlohmann::json& config, const std::string& path);
// Sizes of a published checkpoint: from its tensors, except for the grid. Throws Error for sizes that were
// not published and of which nothing is stated.
LlamaGenConfig infer_llamagen_config(const WeightSource& weights, int64_t block_size,
                                     const StatedSizes& stated = {});

// LlamaGen: predicts the codes of an image grid in raster order, given a class or a caption. Token ids:
// codes, then (c2i) classes, then the null class. Positions are grid cells, see grid_transformer.h.
class LlamaGen : public StepModel {
 public:
  // Throws Error when a tensor is missing, unexpected or of another shape.
  LlamaGen(LlamaGenConfig config, WeightLoader loader);

  const LlamaGenConfig& config() const { return config_; }
  const ModelTraits& traits() const override { return traits_; }
  void step(const StepInputs& in, const StepOutputs& out) const override;
  // Row `index` of a sequence: condition rows, then cells in raster order.
  std::array<int32_t, 3> position(int64_t index) const override;

  // Token ids of the condition (c2i).
  int32_t class_token(int64_t label) const { return static_cast<int32_t>(config_.vocab_size + label); }
  int32_t null_class_token() const { return class_token(config_.num_classes); }

  // What makes condition rows of text features (t2i). Rows that are padding need no row in a step: nobody
  // sees them.
  const CaptionProjection& caption() const { return caption_; }

 private:
  struct Layer {
    RmsNorm attention_norm;
    SelfAttention attention;
    RmsNorm ffn_norm;
    SwiGlu feed_forward;
  };

  void load_condition(WeightLoader& loader);
  Layer load_layer(WeightLoader& loader, const std::string& prefix) const;

  LlamaGenConfig config_;
  AttentionShape attention_;
  ModelTraits traits_;
  RopeTable rope_;
  Weight tok_embeddings_;  // [vocab + classes, dim]
  std::vector<Layer> layers_;
  RmsNorm norm_;
  Linear output_;  // [vocab, dim]
  CaptionProjection caption_;
};

}  // namespace volley::image
