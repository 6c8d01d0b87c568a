#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "core/tensor/dtype.h"
#include "core/tensor/shape.h"

namespace volley {

// Read-only dense row-major elements in host memory that somebody else owns (a mapped checkpoint, say).
// `data` may be unaligned: copy elements out with memcpy or through io/convert.h. Of a block type, the last
// extent is whole blocks.
struct HostView {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;

  int64_t bytes() const { return dtype_bytes(dtype, shape.size()); }
};

// Dense row-major elements in a backend's memory, not owned. T is the element type in that memory.
template <typename T>
struct View {
  T* data = nullptr;
  Shape shape;

  int64_t size() const { return shape.size(); }
  // Rows [begin, begin + count) of the first dimension.
  View rows(int64_t begin, int64_t count) const {
    VOLLEY_ASSERT(shape.rank() > 0 && begin >= 0 && begin + count <= shape[0]);
    std::array<int64_t, Shape::kMaxRank> extents{};
    int64_t stride = 1;
    for (int64_t i = 0; i < shape.rank(); ++i) {
      extents[i] = shape[i];
      if (i > 0) stride *= shape[i];
    }
    extents[0] = count;
    return {data + begin * stride,
            Shape(std::span<const int64_t>(extents.data(), static_cast<size_t>(shape.rank())))};
  }
  // The same elements under other extents.
  View reshape(Shape other) const {
    VOLLEY_ASSERT(other.size() == shape.size());
    return {data, other};
  }
  operator View<const T>() const { return {data, shape}; }
};

using Tensor = View<float>;             // activations, always f32 between operations
using ConstTensor = View<const float>;  // read-only activations
using Indices = View<const int32_t>;    // ids, positions, slots

}  // namespace volley
