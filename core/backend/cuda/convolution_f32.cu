// Convolutions with f32 weights [out, in * kh * kw]: an output element is its bias, then one chain of fused
// multiply- adds over channels and taps in order. A block makes 32 channels of 64 points of one map.
#include "core/backend/cuda/conv_places.cuh"
#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTileChannels = 32;
constexpr int kTilePoints = 64;
constexpr int kTileIn = 16;
constexpr int kPerThread = 8;  // channels of a thread: 4 groups of threads beside 64 points

__global__ void __launch_bounds__(kThreads)
    convolve_f32(ConvPlaces places, const float* weight, const float* bias, Accumulate accumulate,
                 float* out) {
  await_previous();
  __shared__ float inputs[kTileIn][kTilePoints];
  __shared__ float weights[kTileIn][kTileChannels];
  const int64_t map = blockIdx.z;
  const int first_channel = blockIdx.y * kTileChannels, first_point = blockIdx.x * kTilePoints;
  const int point = threadIdx.x % kTilePoints, group = threadIdx.x / kTilePoints;
  const int depth = places.channels * places.kernel_h * places.kernel_w;
  float sums[kPerThread];
#pragma unroll
  for (int c = 0; c < kPerThread; ++c) {
    const int channel = first_channel + group * kPerThread + c;
    sums[c] = channel < places.out_channels ? bias[channel] : 0.0f;
  }
  for (int begin = 0; begin < depth; begin += kTileIn) {
    __syncthreads();
    for (int i = threadIdx.x; i < kTileIn * kTilePoints; i += kThreads) {
      const int k = begin + i / kTilePoints;
      const int tap = k % (places.kernel_h * places.kernel_w),
                channel = k / (places.kernel_h * places.kernel_w);
      inputs[i / kTilePoints][i % kTilePoints] =
          k < depth ? places.input(map, channel, tap, first_point + i % kTilePoints) : 0.0f;
    }
    for (int i = threadIdx.x; i < kTileIn * kTileChannels; i += kThreads) {
      const int k = begin + i % kTileIn, channel = first_channel + i / kTileIn;
      weights[i % kTileIn][i / kTileIn] =
          k < depth && channel < places.out_channels ? weight[int64_t{channel} * depth + k] : 0.0f;
    }
    __syncthreads();
    const int count = min(kTileIn, depth - begin);
    for (int k = 0; k < count; ++k) {
      const float x = inputs[k][point];
#pragma unroll
      for (int c = 0; c < kPerThread; ++c) sums[c] = fmaf(x, weights[k][group * kPerThread + c], sums[c]);
    }
  }
  if (first_point + point >= places.out_area()) return;
#pragma unroll
  for (int c = 0; c < kPerThread; ++c) {
    const int channel = first_channel + group * kPerThread + c;
    if (channel >= places.out_channels) break;
    float& place = out[(map * places.out_channels + channel) * places.out_area() + first_point + point];
    place = accumulate == Accumulate::kAdd ? place + sums[c] : sums[c];
  }
}

}  // namespace

void launch_conv2d_f32(const Conv2dArgs& args, const Stream& stream) {
  if (args.out.size() == 0) return;
  const ConvPlaces places(args);
  const dim3 grid(blocks_of(places.out_area(), kTilePoints), blocks_of(places.out_channels, kTileChannels),
                  static_cast<unsigned>(args.x.shape[0]));
  launch("conv2d f32", convolve_f32, grid, kThreads, stream, places,
         reinterpret_cast<const float*>(args.weight.data.data()),
         reinterpret_cast<const float*>(args.weight.bias.data()), args.accumulate, args.out.data);
}

}  // namespace volley::cuda
