// Convolutions with bf16 weights on tensor cores. An output element is its bias, then the sum over taps and,
// within a tap, over steps of 16 channels in order.
//
// A packed weight is [out / 16][tap][step of 16 channels][lane][8]: what a lane needs of 16 output channels
// by 16 input channels for one multiply-accumulate m16n8k16, in the instruction's own order.
#include <cuda_bf16.h>

#include "core/backend/cuda/conv_places.cuh"
#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/multiply_accumulate.cuh"

namespace volley::cuda {
namespace {

constexpr int kStep = 16;
constexpr int kThreads = 256;
constexpr int kTileChannels = 64;  // of a block: 4 warps above each other
constexpr int kTilePoints = 64;    // 2 warps beside each other, 4 multiply-accumulates of 8 points each
constexpr int kHeld = 32;          // input channels held at a time
constexpr int kPitch = kHeld + 8;  // bf16 of a point in shared memory: reads of 8 points hit all banks

// Every warp makes 16 channels by 32 points.
__global__ void __launch_bounds__(kThreads)
    convolve_bf16(ConvPlaces places, const uint4* weight, const float* bias, Accumulate accumulate,
                  float* out) {
  await_previous();
  __shared__ __nv_bfloat16 held[kTilePoints * kPitch];
  const int64_t map = blockIdx.z;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int first_point = blockIdx.x * kTilePoints;
  const int panel = blockIdx.y * (kTileChannels / 16) + warp % 4;
  const int warp_point = warp / 4 * 32;
  const int taps = places.kernel_h * places.kernel_w, steps = (places.channels + kStep - 1) / kStep;
  const bool has_panel = panel * 16 < places.out_channels;
  float sums[4][4] = {};
  const int point = threadIdx.x % kTilePoints, first_held = threadIdx.x / kTilePoints;
  for (int tap = 0; tap < taps; ++tap) {
    const int row =
        (first_point + point) / places.out_width * places.stride_h + tap / places.kernel_w - places.pad_top;
    const int column =
        (first_point + point) % places.out_width * places.stride_w + tap % places.kernel_w - places.pad_left;
    const bool inside = row >= 0 && row < places.height && column >= 0 && column < places.width &&
                        first_point + point < places.out_area();
    const int64_t plane = int64_t{places.height} * places.width;
    const float* source = places.x + map * places.channels * plane + int64_t{row} * places.width + column;
    for (int begin = 0; begin < places.channels; begin += kHeld) {
      __syncthreads();
#pragma unroll
      for (int c = first_held; c < kHeld; c += kThreads / kTilePoints) {
        const float value = inside && begin + c < places.channels ? source[(begin + c) * plane] : 0.0f;
        held[point * kPitch + c] = __float2bfloat16_rn(value);
      }
      __syncthreads();
#pragma unroll
      for (int s = 0; s < kHeld / kStep; ++s) {
        const int step = begin / kStep + s;
        if (step >= steps || !has_panel) break;
        const uint4 a = __ldg(weight + ((int64_t{panel} * taps + tap) * steps + step) * kWarp + lane);
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const auto* b = reinterpret_cast<const uint32_t*>(held + (warp_point + n * 8 + lane / 4) * kPitch +
                                                            s * kStep + lane % 4 * 2);
          multiply_accumulate(sums[n], a, b[0], b[4]);
        }
      }
    }
  }
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int channel = panel * 16 + lane / 4 + e / 2 * 8;
      const int p = first_point + warp_point + n * 8 + lane % 4 * 2 + e % 2;
      if (channel >= places.out_channels || p >= places.out_area()) continue;
      const float sum = sums[n][e] + bias[channel];
      float& place = out[(map * places.out_channels + channel) * places.out_area() + p];
      place = accumulate == Accumulate::kAdd ? place + sum : sum;
    }
  }
}

// ---- The common case, stride 1 and 1x1 or 3x3 in the middle, over tiles of 16 points by kTileHeight: the
// inputs of 32 channels under all taps of a tile lie in shared memory and are read by every tap. An output
// element is the sum over steps of 32 channels, within one over the taps, within one over two steps of 16
// channels.

// Inputs of one or two runs of 8 points by 16 channels, as a multiply-accumulate takes them; lanes name the
// rows of 8 channels.
__device__ void read_matrices(const __nv_bfloat162* row, uint32_t& a, uint32_t& b) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(a), "=r"(b)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}
__device__ void read_matrices(const __nv_bfloat162* row, uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

constexpr int kTileWidth = 16;

// kPanels: 16 output channels each, of a block; kTileHeight: rows of points. Warps stand kPanels /
// kWarpPanels above each other; each makes kWarpPanels panels by the points that are left for it.
template <int kPanels, int kTileHeight, int kWarpPanels, int kTap, int kChannels>
__global__ void __launch_bounds__(kThreads, 2)
    convolve_tiles(ConvPlaces places, const uint4* weight, const float* bias, Accumulate accumulate,
                   float* out) {
  constexpr int kMargin = kTap / 2, kTaps = kTap * kTap;
  constexpr int kTilePitch = kChannels + 8;
  constexpr int kBrought = kChannels > 32 ? 8 : 4;  // at once by a thread
  constexpr int kHeldWidth = kTileWidth + 2 * kMargin, kHeldPoints = kHeldWidth * (kTileHeight + 2 * kMargin);
  constexpr int kWarpRows = kPanels / kWarpPanels, kWarpColumns = kThreads / kWarp / kWarpRows;
  constexpr int kRuns = kTileHeight * kTileWidth / 8 / kWarpColumns;  // of 8 points, of a warp
  constexpr int kRunsRead = kRuns > 1 ? 2 : 1;                        // by one instruction
  __shared__ alignas(16) __nv_bfloat162 held[kHeldPoints * kTilePitch / 2];
  await_previous();
  const int tiles_across = (places.out_width + kTileWidth - 1) / kTileWidth;
  const int top = blockIdx.x / tiles_across * kTileHeight, left = blockIdx.x % tiles_across * kTileWidth;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int panel = blockIdx.y * kPanels + warp % kWarpRows * kWarpPanels;
  const int first_run = warp / kWarpRows * kRuns;
  const int steps = (places.channels + kStep - 1) / kStep;
  const int64_t plane = int64_t{places.height} * places.width;
  const float* map = places.x + blockIdx.z * places.channels * plane;

  // Neighbouring threads bring neighbouring points of the same two channels. Another block of the processor
  // computes meanwhile.
  const auto bring = [&](int begin) {
#pragma unroll kBrought
    for (int item = threadIdx.x; item < kHeldPoints * kChannels / 2; item += kThreads) {
      const int point = item % kHeldPoints, pair = item / kHeldPoints, channel = begin + 2 * pair;
      const int y = top + point / kHeldWidth - kMargin, x = left + point % kHeldWidth - kMargin;
      const bool inside = y >= 0 && y < places.height && x >= 0 && x < places.width;
      const float* source = map + channel * plane + int64_t{y} * places.width + x;
      held[point * (kTilePitch / 2) + pair] =
          __floats2bfloat162_rn(inside && channel < places.channels ? source[0] : 0.0f,
                                inside && channel + 1 < places.channels ? source[plane] : 0.0f);
    }
  };

  // Weights are asked for kAhead taps early.
  constexpr int kAhead = kWarpPanels == 1 && kTaps > 1 && kChannels == 32 ? 3 : 1;
  constexpr int kUnrolled = kWarpPanels == 1 ? kTaps : 1;  // registers are for the sums
  constexpr int kSteps = kChannels / kStep;
  const auto load = [&](int begin, int tap, uint4(&a)[kSteps][kWarpPanels]) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int p = 0; p < kWarpPanels; ++p) {
        const int step = begin / kStep + s;
        const bool exists = step < steps && (panel + p) * 16 < places.out_channels;
        a[s][p] = exists ? __ldg(weight + ((int64_t{panel + p} * kTaps + tap) * steps + step) * kWarp + lane)
                         : make_uint4(0, 0, 0, 0);
      }
    }
  };
  uint4 ahead[kAhead][kSteps][kWarpPanels];

  float sums[kWarpPanels][kRuns][4] = {};
  for (int begin = 0; begin < places.channels; begin += kChannels) {
#pragma unroll
    for (int t = 0; t < kAhead; ++t) load(begin, t, ahead[t]);
    __syncthreads();
    bring(begin);
    __syncthreads();
#pragma unroll kUnrolled
    for (int tap = 0; tap < kTaps; ++tap) {
      uint4 a[kSteps][kWarpPanels];
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
#pragma unroll
        for (int p = 0; p < kWarpPanels; ++p) a[s][p] = ahead[tap % kAhead][s][p];
      }
      if (tap + kAhead < kTaps) load(begin, tap + kAhead, ahead[tap % kAhead]);
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
#pragma unroll
        for (int r = 0; r < kRuns; r += kRunsRead) {
          uint32_t b[4];
          const int run = first_run + r + (kRunsRead > 1 ? lane / 16 : 0);
          const int y = run / 2 + tap / kTap, x = run % 2 * 8 + tap % kTap + lane % 8;
          const __nv_bfloat162* row =
              held + (y * kHeldWidth + x) * (kTilePitch / 2) + s * (kStep / 2) + lane / 8 % 2 * 4;
          if (kRunsRead > 1) {
            read_matrices(row, b[0], b[1], b[2], b[3]);
          } else {
            read_matrices(row, b[0], b[1]);
          }
#pragma unroll
          for (int q = 0; q < kRunsRead; ++q) {
#pragma unroll
            for (int p = 0; p < kWarpPanels; ++p) {
              multiply_accumulate(sums[p][r + q], a[s][p], b[2 * q], b[2 * q + 1]);
            }
          }
        }
      }
    }
  }
#pragma unroll
  for (int p = 0; p < kWarpPanels; ++p) {
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int channel = (panel + p) * 16 + lane / 4 + e / 2 * 8;
        const int run = first_run + r, y = top + run / 2, x = left + run % 2 * 8 + lane % 4 * 2 + e % 2;
        if (channel >= places.out_channels || y >= places.out_height || x >= places.out_width) continue;
        const float sum = sums[p][r][e] + bias[channel];
        float& place = out[(int64_t{blockIdx.z} * places.out_channels + channel) * places.out_area() +
                           int64_t{y} * places.out_width + x];
        place = accumulate == Accumulate::kAdd ? place + sum : sum;
      }
    }
  }
}

__global__ void pack_conv(const float* weight, ConvShape shape, int64_t steps, int64_t count,
                          uint16_t* packed) {
  await_previous();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t value = i % 8, lane = i / 8 % kWarp, step = i / (8 * kWarp) % steps;
  const int64_t tap = i / (8 * kWarp * steps) % shape.kernel, panel = i / (8 * kWarp * steps * shape.kernel);
  // Registers 0..3 hold rows g, g + 8, g, g + 8 and columns 2t, 2t, 2t + 8, 2t + 8, two values each.
  const int64_t reg = value / 2;
  const int64_t n = panel * 16 + lane / 4 + reg % 2 * 8,
                c = step * kStep + lane % 4 * 2 + reg / 2 * 8 + value % 2;
  const bool exists = n < shape.out_channels && c < shape.in_channels;
  packed[i] = __bfloat16_as_ushort(
      __float2bfloat16_rn(exists ? weight[(n * shape.in_channels + c) * shape.kernel + tap] : 0.0f));
}

}  // namespace

namespace {

// The kernel of a shape: large tiles where they fill the device, small ones for small maps.
template <int kTap>
void launch_tiles(const ConvPlaces& places, const Conv2dArgs& args, const Stream& stream) {
  const auto run = [&](auto kernel, int panels, int height) {
    const dim3 grid(blocks_of(places.out_width, kTileWidth) * blocks_of(places.out_height, height),
                    blocks_of(places.out_channels, panels * 16), static_cast<unsigned>(args.x.shape[0]));
    launch("conv2d bf16", kernel, grid, kThreads, stream, places,
           reinterpret_cast<const uint4*>(args.weight.data.data()),
           reinterpret_cast<const float*>(args.weight.bias.data()), args.accumulate, args.out.data);
  };
  constexpr int64_t kManyPoints = 64 * 64;
  if (places.out_channels <= 16) {
    run(convolve_tiles<1, 8, 1, kTap, 32>, 1, 8);
  } else if (places.out_area() >= kManyPoints) {
    run(convolve_tiles<8, 8, 2, kTap, 32>, 8, 8);
  } else {
    run(convolve_tiles<2, 4, 1, kTap, 128>, 2, 4);
  }
}

}  // namespace

void launch_conv2d_bf16(const Conv2dArgs& args, const Stream& stream) {
  if (args.out.size() == 0) return;
  const ConvPlaces places(args);
  const bool same_size = args.stride_h == 1 && args.stride_w == 1 && places.out_height == places.height &&
                         places.out_width == places.width && places.kernel_h == places.kernel_w &&
                         places.pad_top == places.kernel_h / 2 && places.pad_left == places.kernel_w / 2;
  if (same_size && places.kernel_h == 3) return launch_tiles<3>(places, args, stream);
  if (same_size && places.kernel_h == 1) return launch_tiles<1>(places, args, stream);
  const dim3 grid(blocks_of(places.out_area(), kTilePoints), blocks_of(places.out_channels, kTileChannels),
                  static_cast<unsigned>(args.x.shape[0]));
  launch("conv2d bf16", convolve_bf16, grid, kThreads, stream, places,
         reinterpret_cast<const uint4*>(args.weight.data.data()),
         reinterpret_cast<const float*>(args.weight.bias.data()), args.accumulate, args.out.data);
}

int64_t packed_conv_elements_bf16(const ConvShape& shape) {
  return ceil_div(shape.out_channels, 16) * shape.kernel * ceil_div(shape.in_channels, kStep) * kWarp * 8;
}

void launch_pack_conv_bf16(const float* weight, const ConvShape& shape, uint16_t* packed,
                           const Stream& stream) {
  const int64_t count = packed_conv_elements_bf16(shape);
  launch("pack conv", pack_conv, blocks_of(count, kThreads), kThreads, stream, weight, shape,
         ceil_div(shape.in_channels, kStep), count, packed);
}

}  // namespace volley::cuda
