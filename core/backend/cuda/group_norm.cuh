#pragma once

// Group norm's statistics: chunks of a group are summed by blocks of their own, in f64, and joined in order.

#include <cstdint>

#include "core/backend/cuda/device_math.cuh"

namespace volley::cuda {

inline constexpr int64_t kStatisticsChunk = 4096;  // elements of a group summed by one block

struct Moments {
  double sum;
  double squares;
};

struct GroupScale {
  float shift;
  float scale;

  __device__ float apply(float x, float weight, float bias, bool swish) const {
    const float y = (x - shift) * scale * weight + bias;
    return swish ? quick_silu(y) : y;
  }
};

// Of a group whose `count` chunks have these moments, in every lane of a warp, which adds the parts in the
// same way wherever it is.
__device__ inline GroupScale group_scale(const Moments* moments, int64_t count, int64_t group_size,
                                         float eps) {
  Moments total{0.0, 0.0};
  for (int64_t i = threadIdx.x % kWarp; i < count; i += kWarp) {
    total.sum += moments[i].sum;
    total.squares += moments[i].squares;
  }
  total = {warp_sum(total.sum), warp_sum(total.squares)};
  const double mean = total.sum / static_cast<double>(group_size);
  const double variance = fmax(total.squares / static_cast<double>(group_size) - mean * mean, 0.0);
  return {.shift = static_cast<float>(mean), .scale = static_cast<float>(1.0 / sqrt(variance + eps))};
}

}  // namespace volley::cuda
