#pragma once

#include <string>
#include <vector>

#include "core/io/json.h"
#include "core/nn/layers.h"

namespace volley::speech {

// Sizes of a masked-diffusion Llama, named as in SMDM's Config.
struct DiffLlamaConfig {
  int64_t n_layer = 0;
  int64_t n_embd = 0;
  int64_t n_head = 0;
  int64_t n_query_groups = 0;
  int64_t intermediate_size = 0;
  int64_t padded_vocab_size = 0;
  int64_t mask_token_id = 0;
  int64_t block_size = 0;    // positions
  int64_t memory_width = 0;  // of the rows that cross-attention reads; 0: there is none
  float norm_eps = 1e-5f;
};

// Reads config.json's object, and from the checkpoint whether there is cross-attention. Throws Error on
// missing or impossible values; `path` is for messages.
DiffLlamaConfig parse_diff_llama_config(const nlohmann::json& config, const WeightSource& weights,
                                        const std::string& path);
// Sizes of a published checkpoint, which has no config.json, from its tensors. Throws Error for sizes that
// were not published.
DiffLlamaConfig infer_diff_llama_config(const WeightSource& weights);

// SMDM's bidirectional language model and, with cross-attention to an audio encoder's rows in every layer,
// the decoder of Whisfusion. A row that holds the mask token predicts the token of its own place.
class DiffLlama : public StepModel {
 public:
  // Throws Error when a tensor is missing, unexpected or of another shape.
  DiffLlama(DiffLlamaConfig config, WeightLoader loader);

  const DiffLlamaConfig& config() const { return config_; }
  const ModelTraits& traits() const override { return traits_; }
  void step(const StepInputs& in, const StepOutputs& out) const override;
  void project_memory(const MemoryInputs& in) const override;

  int32_t mask_token() const { return static_cast<int32_t>(config_.mask_token_id); }
  bool has_memory() const { return config_.memory_width > 0; }

 private:
  struct Layer {
    RmsNorm norm_1;
    SelfAttention attn;
    RmsNorm norm_cross;
    CrossAttention cross_attn;
    RmsNorm norm_2;
    SwiGlu swiglu;
  };

  SelfAttention load_attention(WeightLoader& loader, const std::string& prefix) const;
  CrossAttention load_cross_attention(WeightLoader& loader, const std::string& prefix) const;

  DiffLlamaConfig config_;
  AttentionShape attention_;
  ModelTraits traits_;
  RopeTable rope_;
  Weight wte_;  // [vocab + mask, n_embd]
  std::vector<Layer> layers_;
  RmsNorm ln_f_;
  Linear lm_head_;  // [vocab, n_embd]
};

}  // namespace volley::speech
