// ARPG: random-order parallel generation in two passes. Pass 1 turns known codes into one set of keys and
// values; pass 2 turns queries, which start as the mask embedding and carry their target cell in the rotary
// embedding, into codes. Ref: Li et al., "Autoregressive Image Generation with Randomized Parallel Decoding";
// hp-l33/ARPG, models/arpg.py.
#include "image/arpg.h"

#include "core/base/error.h"
#include "image/grid_transformer.h"

namespace volley::image {

void Arpg::step(const StepInputs& in, const StepOutputs& out) const {
  const Rope rope{.table = &rope_, .layout = RopeLayout::kAdjacent};
  const auto first_cross = static_cast<int32_t>(self_dec_.size());
  const int64_t content = in.content_rows(), queries = in.query_rows;
  const Tensor x = embed_rows(in, embeddings_.view(), in.rows);  // [R, dim]; queries are the mask's row

  const Tensor known = x.rows(0, content);  // [C, dim]
  for (int32_t l : in.layers) {
    if (l >= first_cross || content == 0) break;
    const SelfDecoder& layer = self_dec_[l];
    layer.attn.apply({.in = in,
                      .out = out,
                      .shape = attention_,
                      .layer = l,
                      .plane = l,
                      .norm = &layer.attn_norm,
                      .x = known,
                      .residual = known},
                     rope);
    layer.ffn.apply(in.queue, in.arena, in.phase, layer.ffn_norm, known);
    tap_hidden(in, out, l, x);
  }
  if (content > 0) {
    layers_.write(
        {.in = in, .out = out, .shape = attention_, .plane = first_cross, .norm = &layers_norm_, .x = known},
        rope);
  }

  const Tensor asked = x.rows(content, queries);  // [Q, dim]
  for (int32_t l : in.layers) {
    if (l < first_cross || queries == 0) continue;
    const CrossDecoder& layer = cross_dec_[l - first_cross];
    layer.attn.apply({.in = in,
                      .out = out,
                      .shape = attention_,
                      .layer = l,
                      .plane = first_cross,
                      .first_row = content,
                      .norm = &layer.attn_norm,
                      .x = asked,
                      .residual = asked},
                     rope);
    layer.ffn.apply(in.queue, in.arena, in.phase, layer.ffn_norm, asked);
    tap_hidden(in, out, l, x);
  }
  write_logits(in, out, head_.norm, head_.linear, x);
}

std::array<int32_t, 3> Arpg::position(int64_t index) const {
  if (index == 0) return {};
  return cell_position(index - 1, config_.grid_side);
}

SwiGlu Arpg::load_ffn(WeightLoader& loader, const std::string& prefix) const {
  const int64_t ffn = loader.shape(prefix + "w1.weight")[0];
  return {.gate = load_linear(loader, prefix + "w1", ffn, config_.dim),
          .up = load_linear(loader, prefix + "w3", ffn, config_.dim),
          .down = load_linear(loader, prefix + "w2", config_.dim, ffn)};
}

Arpg::Arpg(ArpgConfig config, WeightLoader loader)
    : config_(config),
      attention_{
          .heads = config.n_head, .kv_heads = config.n_head, .head_width = config.dim / config.n_head} {
  const int64_t dim = config_.dim;
  const auto norm = [&](const std::string& name) {
    return load_rms_norm(loader, name, dim, config_.norm_eps);
  };
  const auto square = [&](const std::string& name) { return load_linear(loader, name, dim, dim); };

  // Codes and mask; of a c2i model also classes, null class, and a row for another kind of guidance that is
  // not used.
  const bool has_classes = config_.condition == Condition::kClass;
  embeddings_ = loader.tensor("embeddings.weight",
                              {config_.vocab_size + 1 + (has_classes ? config_.num_classes + 2 : 0), dim});
  if (!has_classes) {
    caption_ = CaptionProjection(loader, "cls_embedding.",
                                 {.rows = 1, .caption_dim = config_.caption_dim, .dim = dim});
  }
  for (int64_t l = 0; l < config_.n_layer / 2; ++l) {
    const std::string self = "layers.self_dec." + std::to_string(l) + ".";
    self_dec_.push_back({.attn_norm = norm(self + "attn_norm"),
                         .attn = SelfAttention{.q = square(self + "attn.to_q"),
                                               .k = square(self + "attn.to_k"),
                                               .v = square(self + "attn.to_v"),
                                               .out = square(self + "attn.proj")},
                         .ffn_norm = norm(self + "ffn_norm"),
                         .ffn = load_ffn(loader, self + "ffn.")});
    const std::string cross = "layers.cross_dec." + std::to_string(l) + ".";
    cross_dec_.push_back(
        {.attn_norm = norm(cross + "attn_norm"),
         .attn = QueryAttention{.q = square(cross + "attn.to_q"), .out = square(cross + "attn.proj")},
         .ffn_norm = norm(cross + "ffn_norm"),
         .ffn = load_ffn(loader, cross + "ffn.")});
  }
  layers_norm_ = norm("layers.norm");
  layers_ = {.k = square("layers.to_k"), .v = square("layers.to_v")};
  head_ = {.norm = norm("norm"), .linear = load_linear(loader, "head", config_.vocab_size, dim)};
  loader.ignore("freqs_cis");  // a table that some exports keep
  loader.finish();
  rope_ = make_grid_rope(
      loader, {.head_width = attention_.head_width, .side = config_.grid_side, .theta = config_.rope_base});
  traits_ = {.family = "arpg",
             .vocab_size = config_.vocab_size,
             .token_rows = embeddings_.shape[0],
             .dim = dim,
             .layers = config_.n_layer,
             .cached_layers = config_.n_layer / 2 + 1,
             .heads = attention_.heads,
             .kv_heads = attention_.kv_heads,
             .head_width = attention_.head_width,
             .weight_type = loader.type(),
             .position_components = 2,
             .max_position = config_.grid_side + 1,
             .logit_shift = 0,
             .query_token = mask_token(),
             .row_kinds = {RowKind::kToken, RowKind::kEmbedding, RowKind::kQuery},
             .logit_kinds = {RowKind::kQuery},
             .masks = {MaskKind::kFull, MaskKind::kBlockCausal}};
}

}  // namespace volley::image
