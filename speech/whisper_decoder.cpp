// The text decoder of Whisper: learned positions, pre-norm self- and cross-attention, a head tied to the
// embedding. Ref: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision";
// openai/whisper, model.py; names of huggingface/transformers. k projections have no bias.
#include "speech/whisper_decoder.h"

namespace volley::speech {

void WhisperDecoder::step(const StepInputs& in, const StepOutputs& out) const {
  const Tensor x = embed_rows(in, embed_tokens_.view(), in.rows);  // [R, d]
  in.queue.add_rows({.table = embed_positions_.view(), .ids = in.positions, .out = x});
  const Tensor normed = in.arena.tensor(x.shape);  // [R, d]
  for (int32_t l : in.layers) {
    const Layer& layer = layers_[l];
    const AttentionCall call{
        .in = in, .out = out, .shape = attention_, .layer = l, .plane = l, .x = normed, .residual = x};
    layer.self_attn_layer_norm.apply(in.queue, x, normed);
    layer.self_attn.apply(call, Rope{});
    layer.encoder_attn_layer_norm.apply(in.queue, x, normed);
    layer.encoder_attn.apply(call);
    layer.fc.apply(in.queue, in.arena, in.phase, layer.final_layer_norm, x);
    tap_hidden(in, out, l, x);
  }
  write_logits(in, out, layer_norm_, proj_out_, x);
}

void WhisperDecoder::project_memory(const MemoryInputs& in) const {
  for (size_t l = 0; l < layers_.size(); ++l) {
    layers_[l].encoder_attn.project(in.queue, in.arena, attention_, in.rows, in.cache, in.tables,
                                    static_cast<int64_t>(l));
  }
}

WhisperDecoder::Layer WhisperDecoder::load_layer(WeightLoader& loader, const std::string& prefix) const {
  const int64_t width = config_.d_model, ffn = config_.decoder_ffn_dim;
  const auto norm = [&](const std::string& name) {
    return load_layer_norm(loader, prefix + name, width, config_.layer_norm_eps);
  };
  const auto square = [&](const std::string& name, Bias bias) {
    return load_linear(loader, prefix + name, width, width, bias);
  };
  return {.self_attn_layer_norm = norm("self_attn_layer_norm"),
          .self_attn = SelfAttention{.q = square("self_attn.q_proj", Bias::kLoaded),
                                     .k = square("self_attn.k_proj", Bias::kNone),
                                     .v = square("self_attn.v_proj", Bias::kLoaded),
                                     .out = square("self_attn.out_proj", Bias::kLoaded)},
          .encoder_attn_layer_norm = norm("encoder_attn_layer_norm"),
          .encoder_attn = CrossAttention{.q = square("encoder_attn.q_proj", Bias::kLoaded),
                                         .k = square("encoder_attn.k_proj", Bias::kNone),
                                         .v = square("encoder_attn.v_proj", Bias::kLoaded),
                                         .out = square("encoder_attn.out_proj", Bias::kLoaded)},
          .final_layer_norm = norm("final_layer_norm"),
          .fc = GeluFeedForward{.fc1 = load_linear(loader, prefix + "fc1", ffn, width, Bias::kLoaded),
                                .fc2 = load_linear(loader, prefix + "fc2", width, ffn, Bias::kLoaded)}};
}

WhisperDecoder::WhisperDecoder(WhisperConfig config, WeightLoader loader)
    : config_(config),
      attention_{.heads = config.decoder_attention_heads,
                 .kv_heads = config.decoder_attention_heads,
                 .head_width = config.d_model / config.decoder_attention_heads} {
  const int64_t width = config_.d_model;
  const std::string root = "model.decoder.";
  embed_tokens_ = loader.tensor(root + "embed_tokens.weight", {config_.vocab_size, width});
  embed_positions_ = loader.tensor(root + "embed_positions.weight", {config_.max_target_positions, width});
  for (int64_t l = 0; l < config_.decoder_layers; ++l) {
    layers_.push_back(load_layer(loader, root + "layers." + std::to_string(l) + "."));
  }
  layer_norm_ = load_layer_norm(loader, root + "layer_norm", width, config_.layer_norm_eps);
  proj_out_ = load_linear(loader, root + "embed_tokens", config_.vocab_size, width);
  loader.ignore("model.encoder.");
  loader.ignore("proj_out.weight");  // some exports repeat the tied table
  loader.finish();
  traits_ = {.family = "whisper",
             .vocab_size = config_.vocab_size,
             .token_rows = config_.vocab_size,
             .dim = width,
             .layers = config_.decoder_layers,
             .cached_layers = config_.decoder_layers,
             .heads = attention_.heads,
             .kv_heads = attention_.kv_heads,
             .head_width = attention_.head_width,
             .weight_type = loader.type(),
             .memory_layers = config_.decoder_layers,
             .memory_width = width,
             .max_position = config_.max_target_positions,
             .row_kinds = {RowKind::kToken, RowKind::kEmbedding},
             .masks = {MaskKind::kCausal, MaskKind::kTree, MaskKind::kBits}};
}

}  // namespace volley::speech
