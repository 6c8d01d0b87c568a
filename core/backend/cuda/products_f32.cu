// Products with f32 weights. A packed weight is [in][out, padded to kTileOut]: neighbouring threads read
// neighbouring outputs. Every output element is one chain of fused multiply-adds over the inputs in order,
// whatever the tile.
#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/product_targets.cuh"

namespace volley::cuda {
namespace {

constexpr int kTileOut = 32;   // outputs of a block
constexpr int kRowGroups = 8;  // threads beside each other in the direction of rows
constexpr int kThreads = kTileOut * kRowGroups;
constexpr int kTileIn = 32;  // inputs of the rows held at a time

// A block makes kTileOut outputs of kRowGroups * kRows rows.
template <int kRows>
__global__ void __launch_bounds__(kThreads) multiply_f32(ProductTargets targets, ProductRows rows) {
  await_previous();
  __shared__ float x[kRowGroups * kRows][kTileIn];
  const auto [target, index, tile] = targets.find(blockIdx.x);
  const int64_t padded = (target.out_features + kTileOut - 1) / kTileOut * kTileOut;
  const int column = threadIdx.x % kTileOut, group = threadIdx.x / kTileOut;
  const int64_t n = int64_t{tile} * kTileOut + column;
  const auto* weight = reinterpret_cast<const float*>(target.weight) + n;
  const int64_t first_row = int64_t{blockIdx.y} * kRowGroups * kRows;
  float sums[kRows] = {};
  for (int begin = 0; begin < rows.in_features; begin += kTileIn) {
    __syncthreads();
    for (int i = threadIdx.x; i < kRowGroups * kRows * kTileIn; i += kThreads) {
      const int64_t r = first_row + i / kTileIn;
      const int k = begin + i % kTileIn;
      x[i / kTileIn][i % kTileIn] =
          r < rows.count && k < rows.in_features ? rows.x[r * rows.in_features + k] : 0.0f;
    }
    __syncthreads();
    const int count = min(kTileIn, rows.in_features - begin);
#pragma unroll 8
    for (int k = 0; k < count; ++k) {
      const float w = weight[(begin + k) * padded];
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] = fmaf(x[group * kRows + r][k], w, sums[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t row = first_row + group * kRows + r;
    if (row < rows.count && n < target.out_features) target.store(row, n, sums[r], rows.accumulate);
  }
}

__global__ void pack_f32(const float* weight, int64_t out, int64_t in, int64_t padded, float* packed) {
  await_previous();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= in * padded) return;
  const int64_t n = i % padded, k = i / padded;
  packed[i] = n < out ? weight[n * in + k] : 0.0f;
}

}  // namespace

void launch_products_f32(const LinearsArgs& args, Accumulate accumulate, const Stream& stream) {
  const ProductRows rows(args, accumulate);
  if (rows.count == 0) return;
  const ProductTargets targets(args, kTileOut);
  const auto run = [&](auto kernel, int tile) {
    launch("linear f32", kernel, dim3(targets.tiles(), blocks_of(rows.count, tile)), kThreads, stream,
           targets, rows);
  };
  if (rows.count <= kRowGroups) {
    run(multiply_f32<1>, kRowGroups);
  } else {
    run(multiply_f32<8>, kRowGroups * 8);
  }
}

int64_t packed_elements_f32(int64_t out, int64_t in) {
  return ceil_div(out, kTileOut) * kTileOut * in;
}

void launch_pack_f32(const float* weight, int64_t out, int64_t in, float* packed, const Stream& stream) {
  const int64_t padded = ceil_div(out, kTileOut) * kTileOut;
  launch("pack f32", pack_f32, blocks_of(in * padded, kThreads), kThreads, stream, weight, out, in, padded,
         packed);
}

}  // namespace volley::cuda
