// A small bidirectional transformer over a class and the words of a prompt: row 0 is the class asked for, or
// "no class"; every word is a row, the mean of hashed embeddings of itself and its parts; row 0 of the last
// layer is the condition. Ref: tools/train/text_encoder.py. Letters: T rows, d width, H heads, D head width.
#include "image/text_encoder.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "image/prompt_words.h"

namespace volley::image {

TextEncoderConfig parse_text_encoder_config(const nlohmann::json& config, const std::string& path) {
  const JsonFields fields(config, path);
  const IntRange size{1, 1 << 20};
  TextEncoderConfig parsed{.dim = fields.integer("dim", size),
                           .n_layer = fields.integer("n_layer", {1, 256}),
                           .n_head = fields.integer("n_head", {1, 256}),
                           .ffn_dim = fields.integer("ffn_dim", size),
                           .num_classes = fields.integer("num_classes", size),
                           .buckets = fields.integer("buckets", size),
                           .max_words = fields.integer("max_words", {1, 1024}),
                           .norm_eps = static_cast<float>(fields.number_or("norm_eps", 1e-5))};
  if (parsed.dim % parsed.n_head != 0) {
    throw Error(path + ": dim " + std::to_string(parsed.dim) + " is no multiple of " +
                std::to_string(parsed.n_head) + " heads");
  }
  return parsed;
}

std::vector<float> TextEncoder::input_rows(const Asked& asked) const {
  const int64_t dim = config_.dim;
  std::vector<std::string> words = prompt_words(asked.prompt);
  words.resize(std::min(words.size(), static_cast<size_t>(config_.max_words)));
  std::vector<float> rows(position_embedding_.begin(),
                          position_embedding_.begin() + (1 + static_cast<int64_t>(words.size())) * dim);
  const int64_t class_id = asked.class_id.value_or(config_.num_classes);
  VOLLEY_ASSERT(class_id >= 0 && class_id <= config_.num_classes);
  for (int64_t i = 0; i < dim; ++i) rows[i] += class_embedding_[class_id * dim + i];
  for (size_t w = 0; w < words.size(); ++w) {
    const std::vector<int32_t> parts = word_rows(words[w], config_.buckets);
    float* row = rows.data() + (1 + static_cast<int64_t>(w)) * dim;
    for (int64_t i = 0; i < dim; ++i) {
      float sum = 0.0f;
      for (const int64_t part : parts) sum += word_embedding_[part * dim + i];
      row[i] += sum / static_cast<float>(parts.size());
    }
  }
  return rows;
}

std::vector<float> TextEncoder::encode(Queue& queue, Arena& arena, const Asked& asked) const {
  const std::vector<float> rows = input_rows(asked);
  const Arena::Scope scope(arena);
  const Tensor x = arena.tensor({static_cast<int64_t>(rows.size()) / config_.dim, config_.dim});  // [T, d]
  const Tensor normed = arena.tensor(x.shape);                                                    // [T, d]
  queue.upload(rows.data(), x.data, x.size() * 4);
  for (const Layer& layer : layers_) {
    layer.attention_norm.apply(queue, x, normed);
    attend(queue, arena, layer, normed, x);
    layer.feed_forward.apply(queue, arena, Phase::kEncoder, layer.ffn_norm, x);
  }
  norm_.apply(queue, x.rows(0, 1), normed.rows(0, 1));
  std::vector<float> condition(static_cast<size_t>(config_.dim));
  queue.download(normed.data, condition.data(), config_.dim * 4);
  return condition;
}

void TextEncoder::attend(Queue& queue, Arena& arena, const Layer& layer, ConstTensor normed, Tensor x) const {
  const Arena::Scope scope(arena);
  const int64_t heads = config_.n_head, width = config_.dim / heads;
  const Tensor queries = arena.tensor({1, x.shape[0], heads, width});  // [1, T, H, D]
  const Tensor keys = arena.tensor(queries.shape);                     // [1, T, H, D]
  const Tensor values = arena.tensor(queries.shape);                   // [1, T, H, D]
  const Tensor mixed = arena.tensor(queries.shape);                    // [1, T, H, D]
  layer.q.apply(queue, Phase::kEncoder, normed, queries);
  layer.k.apply(queue, Phase::kEncoder, normed, keys);
  layer.v.apply(queue, Phase::kEncoder, normed, values);
  queue.dense_attention({.q = queries,
                         .k = keys,
                         .v = values,
                         .scale = 1.0f / std::sqrt(static_cast<float>(width)),
                         .operands = operands_of(layer.q.weight.type),
                         .out = mixed});
  layer.out.apply(queue, Phase::kEncoder, mixed, x, Accumulate::kAdd);
}

TextEncoder::Layer TextEncoder::load_layer(WeightLoader& loader, const std::string& prefix) const {
  const int64_t dim = config_.dim;
  // Rows of wqkv: all of q, all of k, all of v.
  const auto part = [&](int64_t i) {
    return Linear{.weight = loader.linear_rows(prefix + "attention.wqkv.weight",
                                               {.rows = 3 * dim, .begin = i * dim, .count = dim}, dim)};
  };
  return {
      .attention_norm = load_rms_norm(loader, prefix + "attention_norm", dim, config_.norm_eps),
      .q = part(0),
      .k = part(1),
      .v = part(2),
      .out = load_linear(loader, prefix + "attention.wo", dim, dim),
      .ffn_norm = load_rms_norm(loader, prefix + "ffn_norm", dim, config_.norm_eps),
      .feed_forward = SwiGlu{.gate = load_linear(loader, prefix + "feed_forward.w1", config_.ffn_dim, dim),
                             .up = load_linear(loader, prefix + "feed_forward.w3", config_.ffn_dim, dim),
                             .down = load_linear(loader, prefix + "feed_forward.w2", dim, config_.ffn_dim)}};
}

TextEncoder::TextEncoder(TextEncoderConfig config, WeightLoader loader)
    : config_(config),
      class_embedding_(loader.values("class_embedding.weight", {config.num_classes + 1, config.dim})),
      word_embedding_(loader.values("word_embedding.weight", {config.buckets, config.dim})),
      position_embedding_(loader.values("position_embedding.weight", {1 + config.max_words, config.dim})) {
  for (int64_t l = 0; l < config_.n_layer; ++l) {
    layers_.push_back(load_layer(loader, "layers." + std::to_string(l) + "."));
  }
  norm_ = load_rms_norm(loader, "norm", config_.dim, config_.norm_eps);
  loader.finish();
}

}  // namespace volley::image
