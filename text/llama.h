#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/io/json.h"
#include "core/nn/layers.h"

namespace volley::text {

// What a checkpoint calls its tensors: `layers` and a layer's number stand before the names of its parts.
struct LlamaNames {
  std::string embeddings = "model.embed_tokens";
  std::string layers = "model.layers.";
  std::string attention_norm = "input_layernorm";
  std::string q = "self_attn.q_proj";
  std::string k = "self_attn.k_proj";
  std::string v = "self_attn.v_proj";
  std::string attention_out = "self_attn.o_proj";
  std::string q_norm = "self_attn.q_norm";
  std::string k_norm = "self_attn.k_norm";
  std::string mlp_norm = "post_attention_layernorm";
  std::string gate = "mlp.gate_proj";
  std::string up = "mlp.up_proj";
  std::string down = "mlp.down_proj";
  std::string norm = "model.norm";
  std::string head = "lm_head";
};

// What a model predicts.
enum class ModelKind : uint8_t {
  kCausal,               // the next token; rows see what stands before them
  kMasked,               // LLaDA: hidden places by their own rows; rows see all
  kBlockDiffusion,       // Fast-dLLM v2: next places, hidden ones of a block; rows see it and what is before
  kSequentialDiffusion,  // SDLM: next tokens by a window of hidden places behind causal rows
};
// Whether it fills hidden places.
inline bool is_diffusion(ModelKind kind) {
  return kind != ModelKind::kCausal;
}

// Sizes and variants of a decoder of the Llama kind, as config.json of transformers states them.
struct LlamaConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  AttentionShape attention;
  int64_t max_position_embeddings = 0;
  float rms_norm_eps = 1e-6f;
  std::vector<float> rope_frequencies;  // [head width / 2], scaled
  bool attention_bias = false;          // q, k and v have one (Qwen 2)
  bool qk_norm = false;                 // RMS norm of each q and k head (Qwen 3)
  bool tie_word_embeddings = false;
  LlamaNames names;
  ModelKind kind = ModelKind::kCausal;
  int32_t mask_token = -1;  // of diffusion models: the token of a place that is still hidden
  int64_t mask_block = 0;   // places of a block (Fast-dLLM v2), or rows of a window (SDLM)
};

// Reads config.json's object; `path` is for messages. Throws Error on missing or impossible values and on
// model types and features that are not supported.
LlamaConfig parse_llama_config(const nlohmann::json& config, const std::string& path);
// The same of model_type "llada", whose keys are OLMo's; parse_llama_config hands over to it.
LlamaConfig parse_llada_config(const nlohmann::json& config, const std::string& path);

// Llama 2/3, Qwen 2/2.5 and Qwen 3 decoders: token rows under causal, tree or bit masks. LLaDA: token rows
// under a full mask. Fast-dLLM v2: under block-causal ones. SDLM: as the decoders.
class Llama : public StepModel {
 public:
  // Throws Error when a tensor is missing, unexpected or of another shape.
  Llama(LlamaConfig config, WeightLoader loader);

  const ModelTraits& traits() const override { return traits_; }
  // [vocab, hidden], for networks that read the model's tokens. Lives as long as the model.
  const Embedding& embeddings() const { return embed_tokens_; }
  void step(const StepInputs& in, const StepOutputs& out) const override;

 private:
  struct Layer {
    RmsNorm input_layernorm;
    SelfAttention self_attn;
    RmsNorm post_attention_layernorm;
    SwiGlu mlp;
  };

  LlamaConfig config_;
  ModelTraits traits_;
  RopeTable rope_;
  Embedding embed_tokens_;  // [vocab, hidden]
  std::vector<Layer> layers_;
  RmsNorm norm_;
  Linear lm_head_;  // [vocab, hidden]
};

}  // namespace volley::text
