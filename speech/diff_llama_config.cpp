// config.json, or the tensors of a published checkpoint -> DiffLlamaConfig.
#include "core/base/error.h"
#include "speech/diff_llama.h"

namespace volley::speech {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr int64_t kPublishedBlockSize = 2048;

// A weight's tensor, or the quants that stand for it: both have its shape.
const HostView* find_stored(const WeightSource& weights, const std::string& name) {
  const HostView* view = weights.find(name);
  return view != nullptr ? view : weights.find(name + ".quants");
}

Shape matrix_shape(const WeightSource& weights, const std::string& name) {
  const HostView* view = find_stored(weights, name);
  if (view == nullptr) throw Error(weights.path() + ": tensor " + name + ": missing");
  if (view->shape.rank() != 2) {
    throw Error(weights.path() + ": tensor " + name + ": expected 2 dimensions, found " + view->shape.to_string());
  }
  return view->shape;
}

// Width of the rows that cross-attention reads; 0 if there is none.
int64_t memory_width(const WeightSource& weights) {
  const std::string name = "transformer.h.0.cross_attn.kv_proj.weight";
  return find_stored(weights, name) == nullptr ? 0 : matrix_shape(weights, name)[1];
}

void check(const DiffLlamaConfig& config, const std::string& path) {
  if (config.n_embd % (2 * config.n_head) != 0) {
    throw Error(path + ": n_embd " + std::to_string(config.n_embd) + " is no multiple of 2 times " +
                std::to_string(config.n_head) + " heads");
  }
  if (config.n_head % config.n_query_groups != 0) {
    throw Error(path + ": n_query_groups " + std::to_string(config.n_query_groups) + " does not divide " +
                std::to_string(config.n_head) + " heads");
  }
  if (config.memory_width > 0 && config.n_query_groups != config.n_head) {
    throw Error(path + ": n_query_groups " + std::to_string(config.n_query_groups) + " of " +
                std::to_string(config.n_head) + " heads is not supported beside cross-attention");
  }
}

}  // namespace

DiffLlamaConfig parse_diff_llama_config(const nlohmann::json& config, const WeightSource& weights,
                                        const std::string& path) {
  const JsonFields fields(config, path);
  const IntRange size{1, kMaxSize};
  const int64_t heads = fields.integer("n_head", {1, 4096});
  const int64_t vocab = fields.integer("padded_vocab_size", size);
  const DiffLlamaConfig parsed{
      .n_layer = fields.integer("n_layer", {1, 4096}),
      .n_embd = fields.integer("n_embd", size),
      .n_head = heads,
      .n_query_groups = fields.integer_or("n_query_groups", heads, {1, heads}),
      .intermediate_size = fields.integer("intermediate_size", size),
      .padded_vocab_size = vocab,
      .mask_token_id = fields.integer_or("mask_token_id", vocab, {0, vocab}),
      .block_size = fields.integer_or("block_size", kPublishedBlockSize, {1, 1 << 20}),
      .memory_width = memory_width(weights),
      .norm_eps = static_cast<float>(fields.number_or("norm_eps", 1e-5))};
  check(parsed, path);
  return parsed;
}

DiffLlamaConfig infer_diff_llama_config(const WeightSource& weights) {
  const Shape head = matrix_shape(weights, "lm_head.weight");
  DiffLlamaConfig config{.n_embd = head[1],
                         .intermediate_size = matrix_shape(weights, "transformer.h.0.mlp.swiglu.w1.weight")[0],
                         .padded_vocab_size = head[0],
                         .mask_token_id = head[0],
                         .block_size = kPublishedBlockSize,
                         .memory_width = memory_width(weights)};
  while (weights.find("transformer.h." + std::to_string(config.n_layer) + ".norm_1.weight") != nullptr) {
    ++config.n_layer;
  }
  // Diff_LLaMA_170M, the size of Whisfusion.
  if (config.n_embd != 768 || config.n_layer != 18) {
    throw Error(weights.path() + ": " + std::to_string(config.n_layer) + " layers of width " +
                std::to_string(config.n_embd) + " are no published size; a config.json must state n_head");
  }
  config.n_head = config.n_query_groups = 12;
  check(config, weights.path());
  return config;
}

}  // namespace volley::speech
