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

int64_t published_head_count(const TransformerSize& size, const std::string& path) {
  struct Published {
    int64_t dim, layers, heads;
  };
  // LlamaGen B, L, XL, XXL, XXXL, 1B, 3B, 7B; ARPG L, XL and XXL have the sizes of LlamaGen's.
  static constexpr std::array<Published, 8> kSizes{{{768, 12, 12},
                                                    {1024, 24, 16},
                                                    {1280, 36, 20},
                                                    {1536, 48, 24},
                                                    {2560, 48, 40},
                                                    {2048, 22, 32},
                                                    {3200, 24, 32},
                                                    {4096, 32, 32}}};
  const auto found = std::ranges::find_if(
      kSizes, [&](const Published& known) { return known.dim == size.dim && known.layers == size.layers; });
  if (found == kSizes.end()) {
    throw Error(path + ": " + std::to_string(size.layers) + " layers of width " + std::to_string(size.dim) +
                " are no published size; a config.json must state n_head");
  }
  return found->heads;
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
