#include "core/io/checked_shape.h"

#include <algorithm>
#include <string>

namespace volley {

Result<Shape> checked_shape(std::span<const int64_t> extents, DType dtype) {
  if (std::ssize(extents) > Shape::kMaxRank) {
    return Fault{"has " + std::to_string(extents.size()) + " dimensions, at most " +
                 std::to_string(Shape::kMaxRank) + " are supported"};
  }
  const BlockExtent block = dtype_block(dtype);
  const int64_t row = extents.empty() ? 1 : extents.back();
  if (row % block.values != 0) {
    return Fault{"rows of " + std::to_string(row) + " values are no whole blocks of " +
                 std::to_string(block.values) + ", as " + std::string(dtype_name(dtype)) + " stores them"};
  }
  int64_t bytes = block.bytes;  // a block type takes less a value than this counts
  for (const int64_t extent : extents) {
    if (extent < 0) return Fault{"shape holds a negative extent, " + std::to_string(extent)};
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(extent, 1), &bytes)) {
      return Fault{"shape " + Shape(extents).to_string() + " overflows 64-bit sizes"};
    }
  }
  return Shape(extents);
}

}  // namespace volley
