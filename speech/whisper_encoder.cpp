// The audio encoder of Whisper: two convolutions over time, then a pre-norm transformer over all rows at
// once. Ref: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision"; openai/whisper,
// model.py; names of huggingface/transformers. openai scales q and k by d^-1/4 each, transformers q by
// d^-1/2: so do we. Letters: N sounds, F frames, T = F / 2 rows, d model width, H heads, D head width.
#include "speech/whisper_encoder.h"

#include <array>
#include <cmath>

#include "core/base/error.h"

namespace volley::speech {

int64_t WhisperEncoder::rows(int64_t frames) const {
  const int64_t count = (frames + 1) / 2;
  if (frames < 1 || count > config_.max_source_positions) {
    throw Error("whisper: a mel of " + std::to_string(frames) + " frames, expected 1 to " +
                std::to_string(2 * config_.max_source_positions));
  }
  return count;
}

void WhisperEncoder::encode(Queue& queue, Arena& arena, const EncodeArgs& args) const {
  const int64_t sounds = args.mel.shape[0], bands = config_.num_mel_bins, width = config_.d_model;
  const int64_t frames = args.mel.shape[2], count = rows(frames);
  VOLLEY_ASSERT(args.mel.shape[1] == bands && args.out.shape == Shape({sounds, count, width}));
  const Arena::Scope scope(arena);
  const Tensor wide = arena.tensor({sounds, width, 1, frames});  // [N, d, 1, F]
  queue.conv2d({.x = args.mel.reshape({sounds, bands, 1, frames}),
                .weight = conv1_,
                .pad_left = 1,
                .pad_right = 1,
                .out = wide});
  queue.activate({.activation = Activation::kGeluErf, .x = wide});
  const Tensor half = arena.tensor({sounds, width, 1, count});  // [N, d, 1, T]
  queue.conv2d({.x = wide, .weight = conv2_, .stride_w = 2, .pad_left = 1, .pad_right = 1, .out = half});
  queue.activate({.activation = Activation::kGeluErf, .x = half});

  queue.transpose({.x = half.reshape({sounds, width, count}), .out = args.out});
  for (int64_t n = 0; n < sounds; ++n) {
    const Tensor sound = args.out.rows(n, 1).reshape({count, width});  // [T, d]
    queue.add({.a = sound, .b = embed_positions_.view().rows(0, count), .out = sound});
  }
  const Tensor x = args.out.reshape({sounds * count, width});  // [N T, d]
  for (const Layer& layer : layers_) {
    attend(queue, arena, layer, args.out);
    layer.fc.apply(queue, arena, Phase::kEncoder, layer.final_layer_norm, x);
  }
  layer_norm_.apply(queue, x, x);
}

void WhisperEncoder::attend(Queue& queue, Arena& arena, const Layer& layer, Tensor out) const {
  const Arena::Scope scope(arena);
  const Attention& attention = layer.self_attn;
  const int64_t heads = config_.encoder_attention_heads, width = config_.d_model / heads;
  const Tensor x = out.reshape({out.shape[0] * out.shape[1], config_.d_model});     // [N T, d]
  const Tensor normed = arena.tensor(x.shape);                                      // [N T, d]
  const Tensor queries = arena.tensor({out.shape[0], out.shape[1], heads, width});  // [N, T, H, D]
  const Tensor keys = arena.tensor(queries.shape);                                  // [N, T, H, D]
  const Tensor values = arena.tensor(queries.shape);                                // [N, T, H, D]
  const Tensor mixed = arena.tensor(queries.shape);                                 // [N, T, H, D]
  const std::array projections{attention.q_proj.target(queries.reshape(x.shape)),
                               attention.k_proj.target(keys.reshape(x.shape)),
                               attention.v_proj.target(values.reshape(x.shape))};
  queue.dense_self_attention(
      {.norm = layer.self_attn_layer_norm.of(x, normed),
       .projections = {.x = normed, .targets = projections, .phase = Phase::kEncoder},
       .attention = {.q = queries,
                     .k = keys,
                     .v = values,
                     .scale = 1.0f / std::sqrt(static_cast<float>(width)),
                     .operands = operands_of(attention.q_proj.weight.type),
                     .out = mixed},
       .output = attention.out_proj.of(Phase::kEncoder, mixed.reshape(x.shape), x, Accumulate::kAdd)});
}

WhisperEncoder::WhisperEncoder(WhisperConfig config, WeightLoader loader) : config_(config) {
  const int64_t width = config_.d_model, ffn = config_.encoder_ffn_dim;
  const std::string root = "model.encoder.";
  const auto norm = [&](const std::string& name) {
    return load_layer_norm(loader, name, width, config_.layer_norm_eps);
  };
  conv1_ = loader.conv1d(root + "conv1", width, config_.num_mel_bins, 3);
  conv2_ = loader.conv1d(root + "conv2", width, width, 3);
  embed_positions_ = loader.tensor(root + "embed_positions.weight", {config_.max_source_positions, width});
  for (int64_t l = 0; l < config_.encoder_layers; ++l) {
    const std::string prefix = root + "layers." + std::to_string(l) + ".";
    const std::string attention = prefix + "self_attn.";
    layers_.push_back(
        {.self_attn_layer_norm = norm(prefix + "self_attn_layer_norm"),
         .self_attn =
             Attention{.q_proj = load_linear(loader, attention + "q_proj", width, width, Bias::kLoaded),
                       .k_proj = load_linear(loader, attention + "k_proj", width, width),
                       .v_proj = load_linear(loader, attention + "v_proj", width, width, Bias::kLoaded),
                       .out_proj = load_linear(loader, attention + "out_proj", width, width, Bias::kLoaded)},
         .final_layer_norm = norm(prefix + "final_layer_norm"),
         .fc = GeluFeedForward{.fc1 = load_linear(loader, prefix + "fc1", ffn, width, Bias::kLoaded),
                               .fc2 = load_linear(loader, prefix + "fc2", width, ffn, Bias::kLoaded)}});
  }
  layer_norm_ = norm(root + "layer_norm");
  loader.ignore("model.decoder.");
  loader.ignore("proj_out.weight");
  loader.finish();
}

}  // namespace volley::speech
