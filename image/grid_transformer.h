#pragma once

// What transformers over a square grid of image codes share.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/nn/rope_table.h"
#include "core/nn/weights.h"

namespace volley::image {

// Side of a grid of `cells` cells. Throws Error "<path>: ..." if it is no square.
int64_t grid_side(int64_t cells, const std::string& path);

// Position of a grid cell (row-major) in both components of a table made by `make_grid_rope`. Conditions
// stand at (0, 0), whose row of zeros makes their queries and keys zero: every row sees them with equal
// weight.
std::array<int32_t, 3> cell_position(int64_t cell, int64_t side);

// Table for a 2-D rotary embedding: one half of a head's pairs turns by the cell's row, the other by its
// column. Row 0 is zeros. Throws Error "<path>: ..." if the head width is no multiple of 4.
struct GridRopeOptions {
  int64_t head_width = 0;
  int64_t side = 0;
  float theta = 10000.0f;
};
RopeTable make_grid_rope(const WeightLoader& loader, const GridRopeOptions& options);

// A published size of LlamaGen or ARPG: what checkpoints tell, then what they do not.
struct PublishedSize {
  std::string_view name;  // "L"
  int64_t dim = 0;
  int64_t layers = 0;
  int64_t ffn = 0;  // rows of the hidden layer
  int64_t heads = 0;
};
std::span<const PublishedSize> published_sizes();

// The published size of these tensors. `w1` names the hidden layer's tensor, whose rows are checked. Throws
// Error
// "<path>: ..." for other sizes, saying what was expected and what is there.
struct TransformerSize {
  int64_t dim = 0;
  int64_t layers = 0;
  std::string w1;
};
const PublishedSize& find_published_size(const WeightSource& weights, const TransformerSize& size);

// Number of consecutive i from 0 for which the checkpoint has PREFIX<i>SUFFIX.
int64_t count_blocks(const WeightSource& source, const std::string& prefix, const std::string& suffix);
// Shape of a tensor that must exist and have `rank` dimensions. Throws Error naming it.
Shape require_shape(const WeightSource& source, const std::string& name, int64_t rank);

}  // namespace volley::image
