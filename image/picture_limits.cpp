#include "image/picture_limits.h"

#include "core/base/error.h"

namespace volley::image {

std::string size_fault(int64_t width, int64_t height) {
  if (width >= 1 && height >= 1 && width <= kMaxSide && height <= kMaxSide && width * height <= kMaxPixels) {
    return "";
  }
  return std::to_string(width) + "x" + std::to_string(height) + " pixels: too large or empty";
}

void throw_no_memory(int64_t width, int64_t height) {
  throw Error("out of memory: cannot pack a picture of " + std::to_string(width) + "x" +
              std::to_string(height) + " pixels");
}

}  // namespace volley::image
