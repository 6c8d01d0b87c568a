#include "image/grid_transformer.h"

#include <algorithm>

#include "core/base/error.h"

namespace volley::image {
int64_t grid_side(int64_t cells, const std::string& path) {
  int64_t side = 0;
  while (side * side < cells) ++side;
  if (cells < 1 || side * side != cells) {
    throw Error(path + ": a grid of " + std::to_string(cells) + " cells is no square");
  }
  return side;
}

std::array<int32_t, 3> cell_position(int64_t cell, int64_t side) {
  return {static_cast<int32_t>(cell / side + 1), static_cast<int32_t>(cell % side + 1), 0};
}

RopeTable make_grid_rope(const WeightLoader& loader, const GridRopeOptions& options) {
  VOLLEY_ASSERT(options.head_width % 4 == 0);
  return make_rope_table(loader, rope_frequencies(options.head_width / 2, options.theta),
                         {.rows = options.side + 1, .origin = RopeOrigin::kNull});
}

std::span<const PublishedSize> published_sizes() {
  // Ref: FoundationVision/LlamaGen, autoregressive/models/gpt.py. ARPG L, XL and XXL have LlamaGen's sizes.
  static constexpr std::array<PublishedSize, 8> kSizes{{{"B", 768, 12, 2048, 12},
                                                        {"L", 1024, 24, 2816, 16},
                                                        {"XL", 1280, 36, 3584, 20},
                                                        {"XXL", 1536, 48, 4096, 24},
                                                        {"XXXL", 2560, 48, 6912, 40},
                                                        {"1B", 2048, 22, 5632, 32},
                                                        {"3B", 3200, 24, 8704, 32},
                                                        {"7B", 4096, 32, 11008, 32}}};
  return kSizes;
}

const PublishedSize& find_published_size(const WeightSource& weights, const TransformerSize& size) {
  const auto found = std::ranges::find_if(published_sizes(), [&](const PublishedSize& known) {
    return known.dim == size.dim && known.layers == size.layers;
  });
  if (found == published_sizes().end()) {
    throw Error(weights.path() + ": " + std::to_string(size.layers) + " layers of width " +
                std::to_string(size.dim) + " are no published size; a config.json must state n_head");
  }
  const Shape expected{found->ffn, found->dim}, shape = require_shape(weights, size.w1, 2);
  if (shape != expected) {
    throw Error(weights.path() + ": tensor " + size.w1 + ": expected shape " + expected.to_string() +
                " as in the published size " + std::string(found->name) + ", found " + shape.to_string());
  }
  return *found;
}

int64_t count_blocks(const WeightSource& source, const std::string& prefix, const std::string& suffix) {
  int64_t count = 0;
  while (stored_shape(source, prefix + std::to_string(count) + suffix)) ++count;
  return count;
}

Shape require_shape(const WeightSource& source, const std::string& name, int64_t rank) {
  const auto shape = stored_shape(source, name);
  if (!shape) throw Error(source.path() + ": tensor " + name + ": missing");
  if (shape->rank() != rank) {
    throw Error(source.path() + ": tensor " + name + ": expected " + std::to_string(rank) +
                " dimensions, found " + shape->to_string());
  }
  return *shape;
}

}  // namespace volley::image
