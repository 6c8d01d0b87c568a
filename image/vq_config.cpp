// config.json, or the tensors of a checkpoint -> VqConfig.
#include "core/base/error.h"
#include "image/grid_transformer.h"
#include "image/vq_model.h"

namespace volley::image {
namespace {

constexpr int64_t kMaxChannels = 1 << 16;
constexpr int64_t kMaxLevels = 12;
constexpr int64_t kGroups = 32;  // of the norms

void check(const VqConfig& config, const std::string& path) {
  if (config.ch_mult.empty() || static_cast<int64_t>(config.ch_mult.size()) > kMaxLevels) {
    throw Error(path + ": " + std::to_string(config.ch_mult.size()) + " resolutions, expected 1 to " +
                std::to_string(kMaxLevels));
  }
  if (config.num_res_blocks < 1) throw Error(path + ": no residual blocks");
  for (int64_t mult : config.ch_mult) {
    if (mult < 1 || config.ch * mult % kGroups != 0) {
      throw Error(path + ": " + std::to_string(config.ch * mult) + " channels, expected a multiple of " +
                  std::to_string(kGroups));
    }
  }
}

}  // namespace

VqConfig parse_vq_config(const nlohmann::json& config, const std::string& path) {
  const JsonFields fields(config, path);
  const IntRange channels{1, kMaxChannels};
  VqConfig parsed{.ch = fields.integer("ch", channels),
                  .ch_mult = fields.integers("ch_mult", {1, 64}),
                  .z_channels = fields.integer("z_channels", channels),
                  .codebook_size = fields.integer("codebook_size", {1, 1 << 24}),
                  .codebook_embed_dim = fields.integer("codebook_embed_dim", channels),
                  .num_res_blocks = fields.integer("num_res_blocks", {1, 64})};
  check(parsed, path);
  return parsed;
}

VqConfig infer_vq_config(const WeightSource& weights) {
  const Shape codebook = require_shape(weights, "quantize.embedding.weight", 2);
  VqConfig config{.ch = require_shape(weights, "encoder.conv_in.weight", 4)[0],
                  .z_channels = require_shape(weights, "encoder.conv_out.weight", 4)[0],
                  .codebook_size = codebook[0],
                  .codebook_embed_dim = codebook[1],
                  .num_res_blocks = count_blocks(weights, "encoder.conv_blocks.0.res.", ".conv1.weight")};
  if (config.ch < 1) throw Error(weights.path() + ": tensor encoder.conv_in.weight: empty");
  const int64_t levels = count_blocks(weights, "encoder.conv_blocks.", ".res.0.conv1.weight");
  for (int64_t level = 0; level < levels; ++level) {
    const std::string name = "encoder.conv_blocks." + std::to_string(level) + ".res.0.conv1.weight";
    config.ch_mult.push_back(require_shape(weights, name, 4)[0] / config.ch);
  }
  check(config, weights.path());
  return config;
}

}  // namespace volley::image
