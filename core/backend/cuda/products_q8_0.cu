// Products with q8_0 weights (core/backend/q8_0.h). Rows are quantized first; then every output element is
// the chain, block of 32 inputs by block, of fused multiply-adds of an exact integer sum and both scales: the
// bits of the host's kernels.
//
// Packed quants are [N / 8][pairs of blocks][lane][16]: a warp reads 8 outputs by 2 blocks as one run of 512
// bytes. Lane l holds output l / 4, block (l / 2) % 2 of the pair, half l % 2 of the block. Packed scales are
// f16 [N / 8][blocks, padded to pairs][8].
#include <cuda_fp16.h>

#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/product_targets.cuh"
#include "core/io/convert.h"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kTileOut = 8;
constexpr int kSegment = 64;  // blocks whose sums are held at a time
constexpr int kBlock = static_cast<int>(kQ8BlockSize);

int64_t pairs_of(int64_t in) {
  return ceil_div(ceil_div(in, kBlock), 2);
}

// What the host's quantize_row_block does: a warp takes one block, a lane one value.
__global__ void quantize_rows(const float* x, int64_t rows, int in, int blocks, int8_t* quants,
                              float* scales) {
  await_previous();
  const int64_t index = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;  // of a row's block
  if (index >= rows * blocks) return;
  const int lane = threadIdx.x % kWarp;
  const int64_t row = index / blocks;
  const int k = static_cast<int>(index % blocks) * kBlock + lane;
  const float value = k < in ? x[row * in + k] : 0.0f;
  int greatest = __float_as_int(value) & 0x7fffffff;  // magnitudes are ordered as their bits are
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2)
    greatest = max(greatest, __shfl_xor_sync(kAllLanes, greatest, step));
  const float magnitude = __int_as_float(greatest);
  if (!isfinite(magnitude)) {
    quants[index * kBlock + lane] = 0;
    if (lane == 0) scales[index] = __int_as_float(0x7fc00000);
    return;
  }
  float inverse = magnitude > 0.0f ? 127.0f / magnitude : 0.0f;
  if (!isfinite(inverse)) inverse = 0.0f;
  quants[index * kBlock + lane] = static_cast<int8_t>(__float2int_rn(value * inverse));
  if (lane == 0) scales[index] = magnitude / 127.0f;
}

struct QuantizedRows {
  const int8_t* quants;  // [R, blocks * 32]
  const float* scales;   // [R, blocks]
};

// A block makes 8 outputs of kRows rows. Warps share the pairs of blocks of a segment and leave exact integer
// sums; then a thread for each element goes through them in order.
template <int kRows>
__global__ void __launch_bounds__(kThreads)
    multiply_q8_0(ProductTargets targets, ProductRows rows, QuantizedRows x) {
  await_previous();
  __shared__ int dots[kSegment][kRows][kTileOut];
  const auto [target, index, tile] = targets.find(blockIdx.x);
  const int blocks = (rows.in_features + kBlock - 1) / kBlock, pairs = (blocks + 1) / 2;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t first_row = int64_t{blockIdx.y} * kRows;
  const auto* panel = reinterpret_cast<const int4*>(target.weight) + int64_t{tile} * pairs * kWarp;
  const auto* scales = reinterpret_cast<const __half*>(target.scales) + int64_t{tile} * pairs * 2 * kTileOut;
  const int row = threadIdx.x / kTileOut, column = threadIdx.x % kTileOut;  // of the chain
  float sum = 0.0f;
  for (int begin = 0; begin < blocks; begin += kSegment) {
    const int end = min(blocks, begin + kSegment);
#pragma unroll 4
    for (int pair = begin / 2 + warp; 2 * pair < end; pair += kWarps) {
      const int4 weight = __ldg(panel + pair * kWarp + lane);
      const int block = 2 * pair + lane / 2 % 2;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        int dot = 0;
        if (block < blocks && first_row + r < rows.count) {
          const int4 quants = *reinterpret_cast<const int4*>(
              x.quants + ((first_row + r) * blocks + block) * kBlock + lane % 2 * 16);
          dot = __dp4a(weight.x, quants.x, dot);
          dot = __dp4a(weight.y, quants.y, dot);
          dot = __dp4a(weight.z, quants.z, dot);
          dot = __dp4a(weight.w, quants.w, dot);
        }
        dot += __shfl_xor_sync(kAllLanes, dot, 1);
        if (lane % 2 == 0 && block < end) dots[block - begin][r][lane / 4] = dot;
      }
    }
    __syncthreads();
    if (row < kRows && first_row + row < rows.count) {
      const float* row_scales = x.scales + (first_row + row) * blocks;
#pragma unroll 8
      for (int b = begin; b < end; ++b) {
        sum = fmaf(static_cast<float>(dots[b - begin][row][column]),
                   __half2float(scales[b * kTileOut + column]) * row_scales[b], sum);
      }
    }
    __syncthreads();
  }
  const int64_t n = int64_t{tile} * kTileOut + column;
  if (row < kRows && first_row + row < rows.count && n < target.out_features) {
    target.store(first_row + row, n, sum, rows.accumulate);
  }
}

__global__ void pack_q8_0(PackQ8Args args) {
  await_previous();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;  // of 16 quants
  const int64_t pairs = (args.blocks + 1) / 2, panels = (args.out + kTileOut - 1) / kTileOut;
  if (i >= panels * pairs * kWarp) return;
  const int64_t lane = i % kWarp, pair = i / kWarp % pairs, panel = i / (kWarp * pairs);
  const int64_t n = panel * kTileOut + lane / 4, block = 2 * pair + lane / 2 % 2;
  const bool exists = n < args.out && block < args.blocks;
  for (int64_t q = 0; q < 16; ++q) {
    args.packed_quants[i * 16 + q] =
        exists ? args.quants[(n * args.blocks + block) * kBlock + lane % 2 * 16 + q] : int8_t{0};
  }
  if (lane % 2 == 0) {
    args.packed_scales[((panel * pairs + pair) * 2 + lane / 2 % 2) * kTileOut + lane / 4] =
        exists ? args.scales[n * args.blocks + block] : uint16_t{0};
  }
}

}  // namespace

int64_t quantized_rows_bytes(int64_t rows, int64_t in_features) {
  const int64_t blocks = ceil_div(in_features, kBlock);
  return rows * blocks * (kBlock + 4);
}

void launch_products_q8_0(const LinearsArgs& args, Accumulate accumulate, std::byte* quantized_rows,
                          const Stream& stream) {
  const ProductRows rows(args, accumulate);
  if (rows.count == 0) return;
  const int64_t blocks = ceil_div(rows.in_features, kBlock);
  auto* quants = reinterpret_cast<int8_t*>(quantized_rows);
  auto* scales = reinterpret_cast<float*>(quantized_rows + rows.count * blocks * kBlock);
  launch("quantize rows", quantize_rows, blocks_of(rows.count * blocks * kWarp, kThreads), kThreads, stream,
         rows.x, rows.count, rows.in_features, static_cast<int>(blocks), quants, scales);
  const ProductTargets targets(args, kTileOut);
  const auto run = [&](auto kernel, int tile) {
    launch("linear q8_0", kernel, dim3(targets.tiles(), blocks_of(rows.count, tile)), kThreads, stream,
           targets, rows, QuantizedRows{.quants = quants, .scales = scales});
  };
  if (rows.count <= 2) {
    run(multiply_q8_0<2>, 2);
  } else if (rows.count <= 8) {
    run(multiply_q8_0<8>, 8);
  } else {
    run(multiply_q8_0<16>, 16);
  }
}

int64_t packed_quants_q8_0(int64_t out, int64_t in) {
  return ceil_div(out, kTileOut) * kTileOut * pairs_of(in) * 2 * kBlock;
}

int64_t packed_scales_q8_0(int64_t out, int64_t in) {
  return ceil_div(out, kTileOut) * kTileOut * pairs_of(in) * 2;
}

void launch_pack_q8_0(const PackQ8Args& args, const Stream& stream) {
  const int64_t runs = ceil_div(args.out, kTileOut) * ((args.blocks + 1) / 2) * kWarp;
  launch("pack q8_0", pack_q8_0, blocks_of(runs, kThreads), kThreads, stream, args);
}

}  // namespace volley::cuda
