// A Llama without a causal mask that fills in masked places, and the same with cross-attention to audio.
// Ref: Nie et al., "Scaling up Masked Diffusion Models on Text"; ML-GSAI/SMDM, lit_gpt/diffmodel.py;
// Kwon et al., "Whisfusion: Parallel ASR Decoding via a Diffusion Transformer".
// The reference rounds its rotary tables to bfloat16, whatever the model's type: so do we. Audio rows are not
// normed again before cross-attention, and pads are seen like any token.
#include "speech/diff_llama.h"

#include <algorithm>

#include "core/base/error.h"

namespace volley::speech {

void DiffLlama::step(const StepInputs& in, const StepOutputs& out) const {
  const Rope rope{.table = &rope_, .layout = RopeLayout::kSplitHalf};
  const Tensor x = embed_rows(in, wte_.view(), in.rows);  // [R, n_embd]
  const Tensor normed = in.arena.tensor(x.shape);         // [R, n_embd]
  for (int32_t l : in.layers) {
    const Layer& layer = layers_[l];
    const AttentionCall call{
        .in = in, .out = out, .shape = attention_, .layer = l, .plane = l, .x = normed, .residual = x};
    layer.norm_1.apply(in.queue, x, normed);
    layer.attn.apply(call, rope);
    if (has_memory()) {
      layer.norm_cross.apply(in.queue, x, normed);
      layer.cross_attn.apply(call);
    }
    layer.swiglu.apply(in.queue, in.arena, in.phase, layer.norm_2, x);
    tap_hidden(in, out, l, x);
  }
  write_logits(in, out, ln_f_, lm_head_, x);
}

void DiffLlama::project_memory(const MemoryInputs& in) const {
  if (!has_memory()) return StepModel::project_memory(in);
  for (size_t l = 0; l < layers_.size(); ++l) {
    layers_[l].cross_attn.project(in.queue, in.arena, attention_, in.rows, in.cache, in.tables,
                                  static_cast<int64_t>(l));
  }
}

// Rows of the fused weight, for each query group: q of its heads, k, v, each head width rows.
SelfAttention DiffLlama::load_attention(WeightLoader& loader, const std::string& prefix) const {
  const auto [heads, groups, width] = attention_;
  const int64_t dim = config_.n_embd, group_heads = heads / groups;
  const std::vector<float> fused = loader.values(prefix + "attn.weight", {(heads + 2 * groups) * width, dim});
  std::vector<float> q, k, v;
  auto next = fused.begin();
  const auto take = [&](std::vector<float>& to, int64_t rows) {
    to.insert(to.end(), next, next + rows * dim);
    next += rows * dim;
  };
  for (int64_t g = 0; g < groups; ++g) {
    take(q, group_heads * width);
    take(k, width);
    take(v, width);
  }
  return {.q = Linear{.weight = loader.linear(q, heads * width, dim)},
          .k = Linear{.weight = loader.linear(k, groups * width, dim)},
          .v = Linear{.weight = loader.linear(v, groups * width, dim)},
          .out = load_linear(loader, prefix + "proj", dim, heads * width)};
}

// Rows of kv_proj: all of k, all of v.
CrossAttention DiffLlama::load_cross_attention(WeightLoader& loader, const std::string& prefix) const {
  const int64_t dim = config_.n_embd, memory = config_.memory_width;
  const auto half = [&](int64_t begin) {
    return Linear{.weight = loader.linear_rows(prefix + "kv_proj.weight",
                                               {.rows = 2 * dim, .begin = begin, .count = dim}, memory)};
  };
  return {.q = load_linear(loader, prefix + "q_proj", dim, dim),
          .k = half(0),
          .v = half(dim),
          .out = load_linear(loader, prefix + "proj", dim, dim)};
}

DiffLlama::DiffLlama(DiffLlamaConfig config, WeightLoader loader)
    : config_(config),
      attention_{.heads = config.n_head,
                 .kv_heads = config.n_query_groups,
                 .head_width = config.n_embd / config.n_head} {
  const int64_t dim = config_.n_embd, ffn = config_.intermediate_size;
  const auto norm = [&](const std::string& name) {
    return load_rms_norm(loader, name, dim, config_.norm_eps);
  };
  const int64_t token_rows = std::max(config_.padded_vocab_size, config_.mask_token_id + 1);
  wte_ = loader.tensor("transformer.wte.weight", {token_rows, dim});
  for (int64_t l = 0; l < config_.n_layer; ++l) {
    const std::string prefix = "transformer.h." + std::to_string(l) + ".";
    Layer layer{.norm_1 = norm(prefix + "norm_1"), .attn = load_attention(loader, prefix + "attn.")};
    if (has_memory()) {
      layer.norm_cross = norm(prefix + "norm_cross");
      layer.cross_attn = load_cross_attention(loader, prefix + "cross_attn.");
    }
    layer.norm_2 = norm(prefix + "norm_2");
    layer.swiglu = SwiGlu{.gate = load_linear(loader, prefix + "mlp.swiglu.w1", ffn, dim),
                          .up = load_linear(loader, prefix + "mlp.swiglu.w2", ffn, dim),
                          .down = load_linear(loader, prefix + "mlp.swiglu.w3", dim, ffn)};
    layers_.push_back(std::move(layer));
  }
  ln_f_ = norm("transformer.ln_f");
  lm_head_ = load_linear(loader, "lm_head", config_.padded_vocab_size, dim);
  loader.finish();
  rope_ = make_rope_table(loader, rope_frequencies(attention_.head_width, 10000.0f),
                          {.rows = config_.block_size, .rounding = TableRounding::kBF16});
  traits_ = {.family = has_memory() ? "whisfusion" : "smdm",
             .vocab_size = config_.padded_vocab_size,
             .token_rows = token_rows,
             .dim = dim,
             .layers = config_.n_layer,
             .cached_layers = config_.n_layer,
             .heads = attention_.heads,
             .kv_heads = attention_.kv_heads,
             .head_width = attention_.head_width,
             .weight_type = loader.type(),
             .memory_layers = has_memory() ? config_.n_layer : 0,
             .memory_width = config_.memory_width,
             .max_position = config_.block_size,
             .logit_shift = 0,
             .row_kinds = {RowKind::kToken},
             .masks = {MaskKind::kFull}};
}

}  // namespace volley::speech
