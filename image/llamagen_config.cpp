// config.json, or the tensors of a published checkpoint -> LlamaGenConfig.
#include "core/base/error.h"
#include "image/grid_transformer.h"
#include "image/llamagen.h"

namespace volley::image {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;

void check(LlamaGenConfig& config, const std::string& path) {
  if (config.dim % (4 * config.n_head) != 0) {
    throw Error(path + ": dim " + std::to_string(config.dim) + " is no multiple of 4 times " +
                std::to_string(config.n_head) + " heads");
  }
  if (config.n_head % config.n_kv_head != 0) {
    throw Error(path + ": n_kv_head " + std::to_string(config.n_kv_head) + " does not divide " +
                std::to_string(config.n_head) + " heads");
  }
  config.grid_side = grid_side(config.block_size, path);
}

}  // namespace

LlamaGenConfig parse_llamagen_config(const nlohmann::json& config, const std::string& path) {
  const JsonFields fields(config, path);
  const std::string type = fields.text_or("model_type", "c2i");
  if (type != "c2i" && type != "t2i") throw Error(path + ": model_type " + type + ": expected c2i or t2i");
  const IntRange size{1, kMaxSize};
  const int64_t heads = fields.integer("n_head", {1, 4096});
  LlamaGenConfig parsed{.dim = fields.integer("dim", size),
                        .n_layer = fields.integer("n_layer", {1, 4096}),
                        .n_head = heads,
                        .n_kv_head = fields.integer_or("n_kv_head", heads, {1, heads}),
                        .vocab_size = fields.integer("vocab_size", size),
                        .block_size = fields.integer("block_size", {1, 1 << 20}),
                        .cls_token_num = fields.integer_or("cls_token_num", 1, {1, 1 << 16}),
                        .norm_eps = static_cast<float>(fields.number_or("norm_eps", 1e-5)),
                        .rope_base = static_cast<float>(fields.number_or("rope_base", 10000.0))};
  if (type == "c2i") {
    parsed.num_classes = fields.integer("num_classes", size);
    if (parsed.cls_token_num != 1) throw Error(path + ": cls_token_num of a c2i model: expected 1");
  } else {
    parsed.condition = Condition::kCaption;
    parsed.caption_dim = fields.integer("caption_dim", size);
  }
  check(parsed, path);
  return parsed;
}

LlamaGenConfig infer_llamagen_config(const WeightSource& weights, int64_t block_size,
                                     const StatedSizes& stated) {
  const Shape table = require_shape(weights, "tok_embeddings.weight", 2);
  const std::string class_table = "cls_embedding.embedding_table.weight";
  LlamaGenConfig config{.dim = table[1],
                        .n_layer = count_blocks(weights, "layers.", ".attention.wo.weight"),
                        .vocab_size = table[0],
                        .block_size = block_size};
  if (weights.find(class_table) != nullptr) {
    config.num_classes = require_shape(weights, class_table, 2)[0] - 1;
  } else {
    const Shape uncond = require_shape(weights, "cls_embedding.uncond_embedding", 2);
    config.condition = Condition::kCaption;
    config.cls_token_num = uncond[0];
    config.caption_dim = uncond[1];
  }
  config.n_head = stated.n_head ? *stated.n_head
                                : find_published_size(weights, {.dim = config.dim,
                                                                .layers = config.n_layer,
                                                                .w1 = "layers.0.feed_forward.w1.weight"})
                                      .heads;
  config.norm_eps = stated.norm_eps.value_or(config.norm_eps);
  config.rope_base = stated.rope_base.value_or(config.rope_base);
  config.n_kv_head = config.n_head;
  check(config, weights.path());
  return config;
}

}  // namespace volley::image
