#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "image/picture.h"

namespace volley::image {

// A picture in at most 256 colours.
struct IndexedPicture {
  std::vector<std::array<uint8_t, 3>> palette;  // 1 to 256
  std::vector<uint8_t> indices;                 // [height, width], into the palette
};

// The same picture if it has at most 256 colours. Otherwise colours that cover at least a 256th of it stay as
// they are, the others get what is left of the palette, and each pixel takes the entry nearest to it in RGB.
// The same for the same pixels, wherever it is computed.
IndexedPicture index_colors(const Picture& picture);

}  // namespace volley::image
