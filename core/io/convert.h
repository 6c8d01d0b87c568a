#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "core/io/weight_source.h"
#include "core/tensor/tensor.h"

namespace volley {

// The elements of a view as floats. f32, f16, bf16, f64 (rounded), block types. Throws Error for other types.
std::vector<float> to_f32(const HostView& view);

// The same into memory for view.shape.size() floats.
void copy_to_f32(const HostView& view, float* out);

// Index of the first element of a view of floats that is infinite or NaN, or -1. Throws Error as to_f32.
int64_t first_non_finite(const HostView& view);

// The elements of a view as integers. i64, i32, i16, i8, u8, bool. Throws Error for other types.
std::vector<int64_t> to_i64(const HostView& view);

// Weights per q8_0 block, along the last dimension.
inline constexpr int64_t kQ8BlockSize = 32;

// w[n, k] = quants[n, k] * scales[n, k / 32]. quants: i8 [N, K], scales: f16 [N, K/32]; K a multiple of 32.
// Leading dimensions may be any. Throws Error naming what does not fit.
std::vector<float> dequantize_q8_0(const HostView& quants, const HostView& scales);

// A weight as dequantize_q8_0 takes it.
struct Q8Planes {
  std::vector<int8_t> quants;    // [N, K]
  std::vector<uint16_t> scales;  // [N, K / 32], f16
};

// The very values of a view whose blocks are 32 integers times a scale (q4_0, q5_0, q8_0); null for others.
std::optional<Q8Planes> q8_0_planes(const HostView& view);

// Floats with their extents.
struct FloatTensor {
  Shape shape;
  std::vector<float> values;
};

// A weight by name: stored as floats, or as the q8_0 planes `name`.quants and `name`.scales.
// Throws Error "<path>: tensor 'name' ..." if it is absent or of another type.
FloatTensor read_f32(const WeightSource& source, std::string_view name);

}  // namespace volley
