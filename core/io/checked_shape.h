#pragma once

#include <cstdint>
#include <span>

#include "core/base/error.h"
#include "core/tensor/dtype.h"
#include "core/tensor/shape.h"

namespace volley {

// A Shape from untrusted extents. Faults: more than Shape::kMaxRank dimensions, a negative extent, rows that
// are no whole blocks of a block type, or a size in bytes beyond int64. Zero extents count as one in that
// check, so that the strides of an accepted shape fit as well.
Result<Shape> checked_shape(std::span<const int64_t> extents, DType dtype);

}  // namespace volley
