// Pictures as convolution_wgmma.cu reads them: [N][C / 8][h][w][8] in bf16, made of f32 planes as they are,
// doubled or normed.
#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/group_norm.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/row_parts.cuh"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPlaneChannels = 8;
// Points of a thread: many are on their way at once, few make more blocks of a small picture.
constexpr int kManyPoints = 4;
constexpr int64_t kSmallArea = 64 * 64;

struct Planes {
  const float* x;
  uint4* out;
  int channels;
  int area;
  int width;
};
struct Norm {
  const float* weight;
  const float* bias;
  const Moments* moments;
  float eps;
  int groups;
  bool swish;
};

// Eight channels (y) of points of a picture (z), all on their way at once.
template <int kPoints>
struct Points {
  float values[kPoints][kPlaneChannels];

  static __device__ int index(int i) {
    return blockIdx.x * (kThreads * kPoints) + i * kThreads + threadIdx.x;
  }

  __device__ explicit Points(const Planes& planes) {
    const int64_t first = (int64_t{blockIdx.z} * planes.channels + blockIdx.y * kPlaneChannels) * planes.area;
#pragma unroll
    for (int i = 0; i < kPoints; ++i) {
      const float* from = planes.x + first + min(index(i), planes.area - 1);
#pragma unroll
      for (int c = 0; c < kPlaneChannels; ++c) values[i][c] = from[int64_t{c} * planes.area];
    }
  }

  // `write` puts a point's vector where it belongs.
  template <typename Write>
  __device__ void round(const Planes& planes, const Write& write) const {
#pragma unroll
    for (int i = 0; i < kPoints; ++i) {
      const auto& v = values[i];
      if (index(i) < planes.area) {
        write(index(i), make_uint4(two_bf16(v[0], v[1]), two_bf16(v[2], v[3]), two_bf16(v[4], v[5]),
                                   two_bf16(v[6], v[7])));
      }
    }
  }
};

__device__ inline uint4* plane_of_block(const Planes& planes, int64_t area) {
  return planes.out + (int64_t{blockIdx.z} * (planes.channels / kPlaneChannels) + blockIdx.y) * area;
}

template <int kPoints>
__global__ void __launch_bounds__(kThreads) round_planes(Planes planes) {
  await_previous();
  uint4* out = plane_of_block(planes, planes.area);
  Points<kPoints>(planes).round(planes, [&](int point, uint4 vector) { out[point] = vector; });
}

// Every point becomes a 2x2 block.
template <int kPoints>
__global__ void __launch_bounds__(kThreads) upsample_planes(Planes planes) {
  await_previous();
  uint4* out = plane_of_block(planes, int64_t{planes.area} * 4);
  Points<kPoints>(planes).round(planes, [&](int point, uint4 vector) {
    const int y = point / planes.width, x = point % planes.width;
    uint4* place = out + int64_t{4} * planes.width * y + 2 * x;
    place[0] = vector;
    place[1] = vector;
    place[2 * planes.width] = vector;
    place[2 * planes.width + 1] = vector;
  });
}

template <int kPoints>
__global__ void __launch_bounds__(kThreads, 4) norm_planes(Planes planes, Norm norm) {
  __shared__ GroupScale scales[kPlaneChannels];  // of the groups that the channels belong to
  const int group_channels = planes.channels / norm.groups, first_channel = blockIdx.y * kPlaneChannels;
  const int first_group = first_channel / group_channels;
  float weight[kPlaneChannels], bias[kPlaneChannels];
#pragma unroll
  for (int c = 0; c < kPlaneChannels; ++c) {
    weight[c] = norm.weight[first_channel + c];
    bias[c] = norm.bias[first_channel + c];
  }
  await_previous();
  Points<kPoints> points(planes);
  const int64_t group_size = int64_t{group_channels} * planes.area;
  const int64_t chunks = (group_size + kStatisticsChunk - 1) / kStatisticsChunk;
  const int group = first_group + threadIdx.x / kWarp;
  if (group <= (first_channel + kPlaneChannels - 1) / group_channels) {
    const GroupScale scale = group_scale(norm.moments + (int64_t{blockIdx.z} * norm.groups + group) * chunks,
                                         chunks, group_size, norm.eps);
    if (threadIdx.x % kWarp == 0) scales[group - first_group] = scale;
  }
  __syncthreads();
#pragma unroll
  for (int c = 0; c < kPlaneChannels; ++c) {
    const GroupScale scale = scales[(first_channel + c) / group_channels - first_group];
#pragma unroll
    for (int i = 0; i < kPoints; ++i)
      points.values[i][c] = scale.apply(points.values[i][c], weight[c], bias[c], norm.swish);
  }
  uint4* out = plane_of_block(planes, planes.area);
  points.round(planes, [&](int point, uint4 vector) { out[point] = vector; });
}

Planes planes_of(ConstTensor x, std::byte* out) {
  return {.x = x.data,
          .out = reinterpret_cast<uint4*>(out),
          .channels = static_cast<int>(x.shape[1]),
          .area = static_cast<int>(x.shape[2] * x.shape[3]),
          .width = static_cast<int>(x.shape[3])};
}
template <typename... Parameters, typename... Arguments>
void launch_points(const char* name, void (*few)(Parameters...), void (*many)(Parameters...), ConstTensor x,
                   const Stream& stream, const Arguments&... arguments) {
  const int64_t area = x.shape[2] * x.shape[3];
  const bool small = area <= kSmallArea;
  const dim3 grid(blocks_of(area, kThreads * (small ? 1 : kManyPoints)),
                  static_cast<unsigned>(x.shape[1] / kPlaneChannels), static_cast<unsigned>(x.shape[0]));
  launch(name, small ? few : many, grid, kThreads, stream, arguments...);
}

}  // namespace

int64_t rounded_planes_bytes(const Conv2dArgs& args) {
  return args.x.size() * 2;
}

void launch_round_planes(ConstTensor x, std::byte* planes, const Stream& stream) {
  launch_points("round planes", round_planes<1>, round_planes<kManyPoints>, x, stream, planes_of(x, planes));
}

void launch_upsample_planes(ConstTensor x, std::byte* planes, const Stream& stream) {
  launch_points("upsample planes", upsample_planes<1>, upsample_planes<kManyPoints>, x, stream,
                planes_of(x, planes));
}

void launch_norm_planes(const GroupNormArgs& args, const std::byte* moments, std::byte* planes,
                        const Stream& stream) {
  launch_points("norm planes", norm_planes<1>, norm_planes<kManyPoints>, args.x, stream,
                planes_of(args.x, planes),
                Norm{.weight = args.weight.data,
                     .bias = args.bias.data,
                     .moments = reinterpret_cast<const Moments*>(moments),
                     .eps = args.eps,
                     .groups = static_cast<int>(args.groups),
                     .swish = args.swish == Swish::kAfter});
}

}  // namespace volley::cuda
