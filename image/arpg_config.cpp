// config.json, or the tensors of a published checkpoint -> ArpgConfig.
#include "core/base/error.h"
#include "image/arpg.h"
#include "image/grid_transformer.h"

namespace volley::image {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;

void check(ArpgConfig& config, const std::string& path) {
  if (config.n_layer % 2 != 0) {
    throw Error(path + ": n_layer " + std::to_string(config.n_layer) +
                " is odd: two passes share the layers");
  }
  if (config.dim % (4 * config.n_head) != 0) {
    throw Error(path + ": dim " + std::to_string(config.dim) + " is no multiple of 4 times " +
                std::to_string(config.n_head) + " heads");
  }
  config.grid_side = grid_side(config.block_size, path);
}

}  // namespace

ArpgConfig parse_arpg_config(const nlohmann::json& config, const std::string& path) {
  const JsonFields fields(config, path);
  const std::string type = fields.text_or("model_type", "c2i");
  if (type != "c2i" && type != "t2i") throw Error(path + ": model_type " + type + ": expected c2i or t2i");
  const IntRange size{1, kMaxSize};
  ArpgConfig parsed{.dim = fields.integer("dim", size),
                    .n_layer = fields.integer("n_layer", {2, 4096}),
                    .n_head = fields.integer("n_head", {1, 4096}),
                    .vocab_size = fields.integer("vocab_size", size),
                    .block_size = fields.integer("block_size", {1, 1 << 20}),
                    .norm_eps = static_cast<float>(fields.number_or("norm_eps", 1e-5)),
                    .rope_base = static_cast<float>(fields.number_or("rope_base", 10000.0))};
  if (type == "c2i") {
    parsed.num_classes = fields.integer("num_classes", size);
  } else {
    parsed.condition = Condition::kCaption;
    parsed.caption_dim = fields.integer("caption_dim", size);
    if (fields.integer_or("cls_token_num", 1, size) != 1) throw Error(path + ": cls_token_num: expected 1");
  }
  check(parsed, path);
  return parsed;
}

ArpgConfig infer_arpg_config(const WeightSource& weights, int64_t block_size, const StatedSizes& stated) {
  const Shape table = require_shape(weights, "embeddings.weight", 2);
  const int64_t vocab = require_shape(weights, "head.weight", 2)[0];
  ArpgConfig config{.dim = table[1],
                    .n_layer = 2 * count_blocks(weights, "layers.self_dec.", ".attn.to_q.weight"),
                    .vocab_size = vocab,
                    .num_classes = table[0] - vocab - 3,
                    .block_size = block_size};
  if (config.num_classes < 1) {
    throw Error(weights.path() + ": tensor embeddings.weight: expected more than the " +
                std::to_string(vocab) + " rows of head.weight, 3 and the classes; found " +
                table.to_string());
  }
  config.n_head = stated.n_head ? *stated.n_head
                                : find_published_size(weights, {.dim = config.dim,
                                                                .layers = config.n_layer,
                                                                .w1 = "layers.self_dec.0.ffn.w1.weight"})
                                      .heads;
  config.norm_eps = stated.norm_eps.value_or(config.norm_eps);
  config.rope_base = stated.rope_base.value_or(config.rope_base);
  check(config, weights.path());
  return config;
}

}  // namespace volley::image
