#include "image/picture.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"

namespace volley::image {

Picture over(const RgbaPicture& picture, uint8_t background) {
  Picture result{.width = picture.width, .height = picture.height};
  result.rgb.reserve(picture.rgba.size() / 4 * 3);
  for (size_t i = 0; i < picture.rgba.size(); i += 4) {
    const int alpha = picture.rgba[i + 3];
    for (size_t c = 0; c < 3; ++c) {
      const int mixed = picture.rgba[i + c] * alpha + background * (255 - alpha);
      result.rgb.push_back(static_cast<uint8_t>((mixed + 127) / 255));
    }
  }
  return result;
}

RgbaPicture upright(RgbaPicture picture, Orientation orientation) {
  using enum Orientation;
  if (orientation == kTopLeft) return picture;
  const bool swaps = orientation >= kLeftTop;  // rows are columns
  // Whether the columns and rows of the result run against those of the file, which are its rows and columns
  // where they are swapped.
  const bool x_runs_back = orientation == kTopRight || orientation == kBottomRight ||
                           orientation == kRightTop || orientation == kRightBottom;
  const bool y_runs_back = orientation == kBottomRight || orientation == kBottomLeft ||
                           orientation == kRightBottom || orientation == kLeftBottom;
  RgbaPicture result{.width = swaps ? picture.height : picture.width,
                     .height = swaps ? picture.width : picture.height};
  result.rgba.reserve(picture.rgba.size());
  for (int64_t y = 0; y < result.height; ++y) {
    for (int64_t x = 0; x < result.width; ++x) {
      const int64_t across = x_runs_back ? result.width - 1 - x : x;
      const int64_t down = y_runs_back ? result.height - 1 - y : y;
      const auto pixel =
          picture.rgba.begin() + 4 * (swaps ? across * picture.width + down : down * picture.width + across);
      result.rgba.insert(result.rgba.end(), pixel, pixel + 4);
    }
  }
  return result;
}

GridLayout grid_layout(int64_t count) {
  VOLLEY_ASSERT(count >= 1);
  int64_t columns = 1;
  while (columns * columns < count) ++columns;
  return {.columns = columns, .rows = (count + columns - 1) / columns};
}

Picture make_grid(std::span<const Picture* const> cells, GridLayout layout) {
  VOLLEY_ASSERT(static_cast<int64_t>(cells.size()) <= layout.columns * layout.rows);
  const auto first = std::ranges::find_if(cells, [](const Picture* cell) { return cell != nullptr; });
  VOLLEY_ASSERT(first != cells.end());
  const int64_t width = (*first)->width, height = (*first)->height;
  Picture grid{.width = width * layout.columns, .height = height * layout.rows};
  grid.rgb.assign(static_cast<size_t>(3 * grid.width * grid.height), 255);
  for (size_t i = 0; i < cells.size(); ++i) {
    if (cells[i] == nullptr) continue;
    const Picture& cell = *cells[i];
    VOLLEY_ASSERT(cell.width == width && cell.height == height);
    const int64_t left = static_cast<int64_t>(i) % layout.columns * width;
    const int64_t top = static_cast<int64_t>(i) / layout.columns * height;
    for (int64_t y = 0; y < height; ++y) {
      std::copy_n(cell.rgb.begin() + 3 * y * width, 3 * width,
                  grid.rgb.begin() + 3 * ((top + y) * grid.width + left));
    }
  }
  return grid;
}

}  // namespace volley::image
