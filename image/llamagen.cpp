// LlamaGen: a Llama-2 transformer over the codes of a VQ tokenizer, in raster order, conditioned on a class
// token or on projected text features; 2-D rotary embedding on adjacent pairs. Ref: Sun et al.,
// "Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation"; FoundationVision/LlamaGen,
// autoregressive/models/gpt.py. The authors mask padded caption rows; here they are not fed at all, which is
// the same.
#include "image/llamagen.h"

#include "core/base/error.h"
#include "image/grid_transformer.h"

namespace volley::image {

void LlamaGen::step(const StepInputs& in, const StepOutputs& out) const {
  const Rope rope{.table = &rope_, .layout = RopeLayout::kAdjacent};
  const Tensor x = embed_rows(in, tok_embeddings_.view(), in.rows);  // [R, dim]
  for (int32_t l : in.layers) {
    const Layer& layer = layers_[l];
    layer.attention.apply({.in = in,
                           .out = out,
                           .shape = attention_,
                           .layer = l,
                           .plane = l,
                           .norm = &layer.attention_norm,
                           .x = x,
                           .residual = x},
                          rope);
    layer.feed_forward.apply(in.queue, in.arena, in.phase, layer.ffn_norm, x);
    tap_hidden(in, out, l, x);
  }
  write_logits(in, out, norm_, output_, x);
}

std::array<int32_t, 3> LlamaGen::position(int64_t index) const {
  if (index < config_.cls_token_num) return {};
  return cell_position(index - config_.cls_token_num, config_.grid_side);
}

LlamaGen::Layer LlamaGen::load_layer(WeightLoader& loader, const std::string& prefix) const {
  const auto [heads, kv_heads, width] = attention_;
  const int64_t dim = config_.dim, q_rows = heads * width, kv_rows = kv_heads * width;
  SelfAttention attention{.out = load_linear(loader, prefix + "attention.wo", dim, q_rows)};
  if (loader.has(prefix + "attention.wq.weight")) {
    attention.q = load_linear(loader, prefix + "attention.wq", q_rows, dim);
    attention.k = load_linear(loader, prefix + "attention.wk", kv_rows, dim);
    attention.v = load_linear(loader, prefix + "attention.wv", kv_rows, dim);
  } else {
    // Rows of wqkv: all of q, all of k, all of v.
    const auto rows = [&](int64_t begin, int64_t count) {
      return Linear{
          .weight = loader.linear_rows(prefix + "attention.wqkv.weight",
                                       {.rows = q_rows + 2 * kv_rows, .begin = begin, .count = count}, dim)};
    };
    attention.q = rows(0, q_rows);
    attention.k = rows(q_rows, kv_rows);
    attention.v = rows(q_rows + kv_rows, kv_rows);
  }
  const int64_t ffn = loader.shape(prefix + "feed_forward.w1.weight")[0];
  return {.attention_norm = load_rms_norm(loader, prefix + "attention_norm", dim, config_.norm_eps),
          .attention = std::move(attention),
          .ffn_norm = load_rms_norm(loader, prefix + "ffn_norm", dim, config_.norm_eps),
          .feed_forward = SwiGlu{.gate = load_linear(loader, prefix + "feed_forward.w1", ffn, dim),
                                 .up = load_linear(loader, prefix + "feed_forward.w3", ffn, dim),
                                 .down = load_linear(loader, prefix + "feed_forward.w2", dim, ffn)}};
}

// Codes and classes become one table, so that a class is an ordinary token.
void LlamaGen::load_condition(WeightLoader& loader) {
  const int64_t dim = config_.dim;
  std::vector<WeightLoader::Table> tables{{.name = "tok_embeddings.weight", .rows = config_.vocab_size}};
  if (config_.condition == Condition::kClass) {
    const std::string name = "cls_embedding.embedding_table.weight";
    // Trained with class dropout, the table ends with a null class.
    const bool has_null = loader.has(name) && loader.shape(name)[0] != config_.num_classes;
    tables.push_back({.name = name, .rows = config_.num_classes + (has_null ? 1 : 0)});
  } else {
    caption_ =
        CaptionProjection(loader, "cls_embedding.",
                          {.rows = config_.cls_token_num, .caption_dim = config_.caption_dim, .dim = dim});
  }
  tok_embeddings_ = loader.joined_tables(tables, dim);
}

LlamaGen::LlamaGen(LlamaGenConfig config, WeightLoader loader)
    : config_(config),
      attention_{
          .heads = config.n_head, .kv_heads = config.n_kv_head, .head_width = config.dim / config.n_head} {
  load_condition(loader);
  for (int64_t l = 0; l < config_.n_layer; ++l) {
    layers_.push_back(load_layer(loader, "layers." + std::to_string(l) + "."));
  }
  norm_ = load_rms_norm(loader, "norm", config_.dim, config_.norm_eps);
  output_ = load_linear(loader, "output", config_.vocab_size, config_.dim);
  loader.ignore("freqs_cis");  // a table that some exports keep
  loader.finish();
  rope_ = make_grid_rope(
      loader, {.head_width = attention_.head_width, .side = config_.grid_side, .theta = config_.rope_base});
  traits_ = {.family = "llamagen",
             .vocab_size = config_.vocab_size,
             .token_rows = tok_embeddings_.shape[0],
             .dim = config_.dim,
             .layers = config_.n_layer,
             .cached_layers = config_.n_layer,
             .heads = attention_.heads,
             .kv_heads = attention_.kv_heads,
             .head_width = attention_.head_width,
             .weight_type = loader.type(),
             .position_components = 2,
             .max_position = config_.grid_side + 1,
             .row_kinds = {RowKind::kToken, RowKind::kEmbedding},
             .masks = {MaskKind::kCausal, MaskKind::kTree, MaskKind::kBits}};
}

}  // namespace volley::image
