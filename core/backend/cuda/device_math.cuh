#pragma once

// What the kernels share: reductions in a fixed order and the activations.

#include <cstdint>

#include "core/backend/operations.h"

namespace volley::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

template <typename T>
__device__ T warp_sum(T value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

__device__ inline float warp_max(float value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

// Sum over a block of whole warps, the same for every thread; `partials` holds one value a warp.
template <typename T>
__device__ T block_sum(T value, T* partials) {
  const int warps = blockDim.x / kWarp;
  value = warp_sum(value);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) partials[threadIdx.x / kWarp] = value;
  __syncthreads();
  T total = partials[0];
  for (int w = 1; w < warps; ++w) total += partials[w];
  return total;
}

__device__ inline float block_max(float value, float* partials) {
  const int warps = blockDim.x / kWarp;
  value = warp_max(value);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) partials[threadIdx.x / kWarp] = value;
  __syncthreads();
  float most = partials[0];
  for (int w = 1; w < warps; ++w) most = fmaxf(most, partials[w]);
  return most;
}

// 2^x, zero for -infinity and one for zero. Ref: PTX ISA, ex2: an error of at most 2 units in the last place.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline float silu(float x) {
  return x / (1.0f + expf(-x));
}
// The same by the fast exponential and division: right to a few millionths, and zero below -87.
__device__ inline float quick_silu(float x) {
  constexpr float kLog2E = 1.4426950408889634f;
  return __fdividef(x, 1.0f + power_of_two(x * -kLog2E));
}

// x * P(X <= x) for a standard normal X. Ref: Press et al., "Numerical Recipes", erfcc: erfc(a) =
// t exp(-a^2 + p(t)), t = 1 / (1 + a / 2), to 1.2e-7 of it for all a >= 0; here in base 2, a = |x| / sqrt 2.
__device__ inline float gelu(float x) {
  constexpr float kLog2E = 1.4426950408889634f;
  const float size = fabsf(x);
  const float t = __fdividef(1.0f, fmaf(size, 0.35355339059327376f, 1.0f));
  float p = 0.17087277f * kLog2E;
  p = fmaf(p, t, -0.82215223f * kLog2E);
  p = fmaf(p, t, 1.48851587f * kLog2E);
  p = fmaf(p, t, -1.13520398f * kLog2E);
  p = fmaf(p, t, 0.27886807f * kLog2E);
  p = fmaf(p, t, -0.18628806f * kLog2E);
  p = fmaf(p, t, 0.09678418f * kLog2E);
  p = fmaf(p, t, 0.37409196f * kLog2E);
  p = fmaf(p, t, 1.00002368f * kLog2E);
  p = fmaf(p, t, -1.26551223f * kLog2E);
  const float tail = 0.5f * t * power_of_two(fmaf(size * size, -0.5f * kLog2E, p));
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

__device__ inline float activated(Activation activation, float x) {
  switch (activation) {
    case Activation::kSilu:
      return silu(x);
    case Activation::kGeluErf:
      return gelu(x);
    case Activation::kGeluTanh:
      // (1 + tanh y) / 2 is 1 / (1 + exp(-2y)), which stays exact where the tanh is near -1.
      return x / (1.0f + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
  }
  return x;
}

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
inline unsigned blocks_of(int64_t items, int64_t per_block) {
  return static_cast<unsigned>(ceil_div(items, per_block));
}

}  // namespace volley::cuda
