#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "image/exif.h"

namespace volley::image {

// 8-bit RGB, row by row from the top.
struct Picture {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<uint8_t> rgb;  // [height, width, 3]

  bool operator==(const Picture&) const = default;
};

// 8-bit RGB and opacity, row by row from the top.
struct RgbaPicture {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<uint8_t> rgba;  // [height, width, 4], not premultiplied
};

// The picture before a background of that grey.
Picture over(const RgbaPicture& picture, uint8_t background);

// The picture that is meant by pixels that lie so in their file.
RgbaPicture upright(RgbaPicture picture, Orientation orientation);

// How many pictures stand side by side.
struct GridLayout {
  int64_t columns = 1;
  int64_t rows = 1;
};
// As near to a square as it gets, wider rather than higher.
GridLayout grid_layout(int64_t count);

// Pictures of one size, left to right, then top to bottom. Cells without a picture (null) are white.
Picture make_grid(std::span<const Picture* const> cells, GridLayout layout);

}  // namespace volley::image
