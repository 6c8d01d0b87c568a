// Decoder-only transformer of the Llama kind: pre-RMSNorm, rotary embedding, grouped-query attention, SwiGLU.
// Qwen 2 adds biases to q, k and v; Qwen 3 a norm to each q and k head; LLaDA drops the causal mask;
// Fast-dLLM v2 and SDLM are Qwen 2 under other masks.
// Ref: Touvron et al., "Llama 2"; Qwen 2.5 and Qwen 3 technical reports; Nie et al., "Large Language
// Diffusion Models"; huggingface/transformers for the names.
#include "text/llama.h"

namespace volley::text {

void Llama::step(const StepInputs& in, const StepOutputs& out) const {
  const Rope rope{.table = &rope_, .layout = RopeLayout::kSplitHalf};
  const Tensor x = embed_rows(in, embed_tokens_, in.rows);  // [R, hidden]
  for (int32_t l : in.layers) {
    const Layer& layer = layers_[l];
    layer.self_attn.apply({.in = in,
                           .out = out,
                           .shape = config_.attention,
                           .layer = l,
                           .plane = l,
                           .norm = &layer.input_layernorm,
                           .x = x,
                           .residual = x},
                          rope);
    layer.mlp.apply(in.queue, in.arena, in.phase, layer.post_attention_layernorm, x);
    tap_hidden(in, out, l, x);
  }
  write_logits(in, out, norm_, lm_head_, x);
}

Llama::Llama(LlamaConfig config, WeightLoader loader) : config_(std::move(config)) {
  const int64_t hidden = config_.hidden_size, feed_forward = config_.intermediate_size;
  const auto [heads, kv_heads, width] = config_.attention;
  const auto norm = [&](const std::string& name, int64_t size) {
    return RmsNorm{.weight = loader.tensor(name + ".weight", {size}), .eps = config_.rms_norm_eps};
  };
  const auto linear = [&](const std::string& name, int64_t rows, int64_t columns, bool has_bias = false) {
    Linear loaded{.weight = loader.linear(name + ".weight", rows, columns)};
    if (has_bias) loaded.bias = loader.tensor(name + ".bias", {rows});
    return loaded;
  };
  const LlamaNames& names = config_.names;
  embed_tokens_ = loader.embedding(names.embeddings + ".weight", config_.vocab_size, hidden);
  for (int64_t l = 0; l < config_.num_hidden_layers; ++l) {
    const std::string prefix = names.layers + std::to_string(l) + ".";
    Layer layer{
        .input_layernorm = norm(prefix + names.attention_norm, hidden),
        .self_attn =
            SelfAttention{.q = linear(prefix + names.q, heads * width, hidden, config_.attention_bias),
                          .k = linear(prefix + names.k, kv_heads * width, hidden, config_.attention_bias),
                          .v = linear(prefix + names.v, kv_heads * width, hidden, config_.attention_bias),
                          .out = linear(prefix + names.attention_out, hidden, heads * width)},
        .post_attention_layernorm = norm(prefix + names.mlp_norm, hidden),
        .mlp = SwiGlu{.gate = linear(prefix + names.gate, feed_forward, hidden),
                      .up = linear(prefix + names.up, feed_forward, hidden),
                      .down = linear(prefix + names.down, hidden, feed_forward)}};
    if (config_.qk_norm) {
      layer.self_attn.q_norm = norm(prefix + names.q_norm, width);
      layer.self_attn.k_norm = norm(prefix + names.k_norm, width);
    }
    layers_.push_back(std::move(layer));
  }
  norm_ = norm(names.norm, hidden);
  if (config_.tie_word_embeddings) {
    lm_head_ = embed_tokens_.is_packed() ? Linear{.weight = embed_tokens_.packed}
                                         : linear(names.embeddings, config_.vocab_size, hidden);
    loader.ignore(names.head + ".weight");  // some exports repeat the tied table
  } else {
    lm_head_ = linear(names.head, config_.vocab_size, hidden);
  }
  loader.finish();
  rope_ = make_rope_table(loader, config_.rope_frequencies, {.rows = config_.max_position_embeddings});
  traits_ = {.family = "llama",
             .vocab_size = config_.vocab_size,
             .token_rows = config_.vocab_size,
             .dim = hidden,
             .layers = config_.num_hidden_layers,
             .cached_layers = config_.num_hidden_layers,
             .heads = heads,
             .kv_heads = kv_heads,
             .head_width = width,
             .weight_type = layers_.front().mlp.down.weight.type,
             .max_position = config_.max_position_embeddings,
             .row_kinds = {RowKind::kToken, RowKind::kEmbedding},
             .masks = {MaskKind::kCausal, MaskKind::kTree, MaskKind::kBits}};
  if (config_.kind == ModelKind::kMasked) {
    traits_.family = "llada";
    traits_.logit_shift = 0;
    traits_.masks = {MaskKind::kFull};
  } else if (config_.kind == ModelKind::kBlockDiffusion) {
    traits_.family = "fast_dllm_v2";
    traits_.masks = {MaskKind::kBlockCausal};
  } else if (config_.kind == ModelKind::kSequentialDiffusion) {
    traits_.family = "sdlm";
  }
}

}  // namespace volley::text
