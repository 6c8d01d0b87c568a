// Products with bf16 weights on tensor cores. Letters: R rows, N outputs, K inputs.
//
// A packed weight is [N / 8][K / 32][lane][8]: what a lane of a warp needs of 8 outputs by 32 inputs for two
// multiply-accumulates m16n8k16 lies side by side, and a warp reads it as one run of 512 bytes. Lane l holds
// output l / 4; its eight values are inputs 8 * (l % 4) .. + 7 of the 32. The order of inputs within a
// multiply- accumulate is free as long as rows follow it too.
//
// An output element is the sum, in order, of kSlices partial sums; slice s covers the same steps of 32 inputs
// for every row, and within a slice the steps follow each other. Both kernels below do exactly that: with few
// rows the slices belong to the warps of a block, with many rows a warp goes through them one after the
// other.
#include <cuda_bf16.h>

#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/product_targets.cuh"

namespace volley::cuda {
namespace {

constexpr int kSlices = 8;
constexpr int kStep = 32;      // inputs of a step
constexpr int kTileOut = 8;    // outputs of a multiply-accumulate
constexpr int kTileRows = 16;  // rows of one

// First step of a slice.
__host__ __device__ constexpr int slice_begin(int slice, int steps) {
  return slice * steps / kSlices;
}

struct Tile {
  float values[4] = {};  // (row l / 4, outputs 2 * (l % 4) and the next), (row l / 4 + 8, the same)
};

__device__ uint32_t two_bf16(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// A lane's eight inputs of a row, rounded.
struct RowPart {
  uint32_t values[4] = {};
};

__device__ RowPart load_row_part(const float* x) {
  const float4 a = *reinterpret_cast<const float4*>(x), b = *reinterpret_cast<const float4*>(x + 4);
  return {{two_bf16(a.x, a.y), two_bf16(a.z, a.w), two_bf16(b.x, b.y), two_bf16(b.z, b.w)}};
}

// Near the end of rows whose width is no multiple of 32, or is not aligned.
__device__ RowPart load_row_part_carefully(const float* x, int count) {
  float values[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = i < count ? x[i] : 0.0f;
  return {{two_bf16(values[0], values[1]), two_bf16(values[2], values[3]), two_bf16(values[4], values[5]),
           two_bf16(values[6], values[7])}};
}

__device__ void multiply(Tile& tile, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(tile.values[0]), "+f"(tile.values[1]), "+f"(tile.values[2]), "+f"(tile.values[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// One step of 32 inputs: `upper` and `lower` are the lane's parts of rows l / 4 and l / 4 + 8.
__device__ void multiply_step(Tile& tile, const RowPart& upper, const RowPart& lower, const uint4& weight) {
  multiply(tile, upper.values[0], lower.values[0], upper.values[1], lower.values[1], weight.x, weight.y);
  multiply(tile, upper.values[2], lower.values[2], upper.values[3], lower.values[3], weight.z, weight.w);
}

__device__ uint4 load_weight(const uint4* panel, int step, int lane) {
  return __ldg(panel + step * kWarp + lane);
}

// ---- Few rows: a block makes 8 outputs of up to 16 * kTiles rows, a warp for each slice.

// Weights of a slice that are asked for before the rows are there.
constexpr int kAhead = 4;

template <int kTiles, bool kAligned>
__global__ void __launch_bounds__(kSlices* kWarp, 2) multiply_few(ProductTargets targets, ProductRows rows) {
  __shared__ float partials[kSlices][kTiles * kTileRows * kTileOut];
  const auto [target, tile] = targets.find(blockIdx.x);
  const int steps = (rows.in_features + kStep - 1) / kStep;
  const int lane = threadIdx.x % kWarp, slice = threadIdx.x / kWarp;
  const auto* panel = reinterpret_cast<const uint4*>(target.weight) + int64_t{tile} * steps * kWarp;
  const int64_t first_row = int64_t{blockIdx.y} * kTiles * kTileRows + lane / 4;
  const int begin = slice_begin(slice, steps), end = slice_begin(slice + 1, steps);

  uint4 weights[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    weights[i] = begin + i < end ? load_weight(panel, begin + i, lane) : make_uint4(0, 0, 0, 0);
  }
  await_previous();

  const auto row_part = [&](int64_t row, int step) {
    if (row >= rows.count) return RowPart{};
    const int k = step * kStep + lane % 4 * 8;
    const float* x = rows.x + row * rows.in_features + k;
    return kAligned ? load_row_part(x) : load_row_part_carefully(x, rows.in_features - k);
  };

  Tile sums[kTiles];
  for (int first = begin; first < end; first += kAhead) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int step = first + i;
      if (step >= end) break;
      const uint4 weight = weights[i];
      if (step + kAhead < end) weights[i] = load_weight(panel, step + kAhead, lane);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int64_t row = first_row + t * kTileRows;
        multiply_step(sums[t], row_part(row, step), row_part(row + 8, step), weight);
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    float* part = partials[slice] + (t * kTileRows + lane / 4) * kTileOut + lane % 4 * 2;
    part[0] = sums[t].values[0];
    part[1] = sums[t].values[1];
    part[8 * kTileOut] = sums[t].values[2];
    part[8 * kTileOut + 1] = sums[t].values[3];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kTiles * kTileRows * kTileOut; i += kSlices * kWarp) {
    float sum = partials[0][i];
#pragma unroll
    for (int s = 1; s < kSlices; ++s) sum += partials[s][i];
    const int64_t row = int64_t{blockIdx.y} * kTiles * kTileRows + i / kTileOut;
    const int64_t n = int64_t{tile} * kTileOut + i % kTileOut;
    if (row < rows.count && n < target.out_features) target.store(row, n, sum, rows.accumulate);
  }
}

// ---- Many rows: a block makes 64 outputs of 128 rows with 8 warps; a warp 32 outputs of 32 rows. The rows
// of a step lie in shared memory, rounded; weights come from the first-level cache, which the warps share.

constexpr int kManyRows = 128;
constexpr int kManyOut = 64;
constexpr int kRowPitch =
    kStep / 2 + 4;  // words of a row in shared memory: 20, so that eight rows hit all banks

template <bool kAligned>
__global__ void __launch_bounds__(256, 2) multiply_many(ProductTargets targets, ProductRows rows) {
  await_previous();
  __shared__ uint32_t held[2][kManyRows * kRowPitch];
  const auto [target, tile] = targets.find(blockIdx.x);
  const int steps = (rows.in_features + kStep - 1) / kStep;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int warp_row = warp % 4 * 32, warp_out = warp / 4 * 32;
  const int64_t block_row = int64_t{blockIdx.y} * kManyRows;
  const int64_t panels = (target.out_features + kTileOut - 1) / kTileOut;
  const int64_t first_panel = int64_t{tile} * (kManyOut / kTileOut) + warp_out / kTileOut;

  // Each thread brings two lane parts of a step: rows t / 4 and t / 4 + 64, inputs 8 * (t % 4) ..
  const int part_row = threadIdx.x / 4, part = threadIdx.x % 4;
  const auto fetch = [&](int step, RowPart(&parts)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t row = block_row + part_row + h * 64;
      const int k = step * kStep + part * 8;
      if (row >= rows.count) {
        parts[h] = {};
      } else if (kAligned) {
        parts[h] = load_row_part(rows.x + row * rows.in_features + k);
      } else {
        parts[h] = load_row_part_carefully(rows.x + row * rows.in_features + k, rows.in_features - k);
      }
    }
  };
  const auto put = [&](int buffer, const RowPart(&parts)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      *reinterpret_cast<uint4*>(&held[buffer][(part_row + h * 64) * kRowPitch + part * 4]) =
          *reinterpret_cast<const uint4*>(parts[h].values);
    }
  };
  const auto take = [&](int buffer, int row) {
    RowPart result;
    *reinterpret_cast<uint4*>(result.values) =
        *reinterpret_cast<const uint4*>(&held[buffer][row * kRowPitch + lane % 4 * 4]);
    return result;
  };

  Tile totals[2][4], sums[2][4];
  RowPart parts[2];
  fetch(0, parts);
  put(0, parts);
  __syncthreads();
  int slice = 0;
  for (int step = 0; step < steps; ++step) {
    const bool more = step + 1 < steps;
    if (more) fetch(step + 1, parts);
    uint4 weights[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int64_t panel = first_panel + n;
      weights[n] =
          panel < panels
              ? load_weight(reinterpret_cast<const uint4*>(target.weight) + panel * steps * kWarp, step, lane)
              : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const int row = warp_row + t * kTileRows + lane / 4;
      const RowPart upper = take(step % 2, row), lower = take(step % 2, row + 8);
#pragma unroll
      for (int n = 0; n < 4; ++n) multiply_step(sums[t][n], upper, lower, weights[n]);
    }
    // Slices that end here, empty ones included, are added in order.
    while (slice < kSlices && slice_begin(slice + 1, steps) <= step + 1) {
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            totals[t][n].values[e] =
                slice == 0 ? sums[t][n].values[e] : totals[t][n].values[e] + sums[t][n].values[e];
            sums[t][n].values[e] = 0.0f;
          }
        }
      }
      ++slice;
    }
    if (more) put((step + 1) % 2, parts);
    __syncthreads();
  }
#pragma unroll
  for (int t = 0; t < 2; ++t) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t row = block_row + warp_row + t * kTileRows + lane / 4 + e / 2 * 8;
        const int64_t out = (first_panel + n) * kTileOut + lane % 4 * 2 + e % 2;
        if (row < rows.count && out < target.out_features) {
          target.store(row, out, totals[t][n].values[e], rows.accumulate);
        }
      }
    }
  }
}

__global__ void pack_bf16(const float* weight, int64_t out, int64_t in, int64_t steps, int64_t count,
                          uint16_t* packed) {
  await_previous();
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i >= count) return;
  const int64_t value = i % 8, lane = i / 8 % kWarp, step = i / (8 * kWarp) % steps,
                panel = i / (8 * kWarp * steps);
  const int64_t n = panel * kTileOut + lane / 4, k = step * kStep + lane % 4 * 8 + value;
  const __nv_bfloat16 rounded = __float2bfloat16_rn(n < out && k < in ? weight[n * in + k] : 0.0f);
  packed[i] = __bfloat16_as_ushort(rounded);
}

}  // namespace

void launch_products_bf16(const LinearsArgs& args, Accumulate accumulate, const Stream& stream) {
  const ProductRows rows(args, accumulate);
  if (rows.count == 0) return;
  const bool aligned = rows.in_features % kStep == 0 && reinterpret_cast<uintptr_t>(rows.x) % 16 == 0;
  const auto few = [&](auto aligned_kernel, auto careful_kernel, int tile) {
    const ProductTargets targets(args, kTileOut);
    const dim3 grid(targets.tiles(), blocks_of(rows.count, tile));
    if (aligned) {
      launch("linear bf16", aligned_kernel, grid, kSlices * kWarp, stream, targets, rows);
    } else {
      launch("linear bf16", careful_kernel, grid, kSlices * kWarp, stream, targets, rows);
    }
  };
  if (rows.count <= 16) {
    few(multiply_few<1, true>, multiply_few<1, false>, 16);
  } else if (rows.count <= 32) {
    few(multiply_few<2, true>, multiply_few<2, false>, 32);
  } else {
    const ProductTargets targets(args, kManyOut);
    const dim3 grid(targets.tiles(), blocks_of(rows.count, kManyRows));
    if (aligned) {
      launch("linear bf16", multiply_many<true>, grid, 256, stream, targets, rows);
    } else {
      launch("linear bf16", multiply_many<false>, grid, 256, stream, targets, rows);
    }
  }
}

int64_t packed_elements_bf16(int64_t out, int64_t in) {
  return ceil_div(out, kTileOut) * kTileOut * ceil_div(in, kStep) * kStep;
}

void launch_pack_bf16(const float* weight, int64_t out, int64_t in, uint16_t* packed, const Stream& stream) {
  const int64_t count = packed_elements_bf16(out, in);
  launch("pack bf16", pack_bf16, blocks_of(count, 256), 256, stream, weight, out, in, ceil_div(in, kStep),
         count, packed);
}

}  // namespace volley::cuda
