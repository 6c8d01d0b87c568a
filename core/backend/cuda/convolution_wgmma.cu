// Convolutions with bf16 weights on Hopper's tensor cores. Their input is [N][C / 8][h][w][8] in bf16
// (rounded_planes.cu). A block makes 64 * kGroups channels of a tile of points. Weights come from memory as
// the lanes take them, kRing taps early; inputs come to shared memory as boxes of 64 channels that hold zeros
// where the picture ends, some stages early:
//   pictures  1x1 or 3x3 in the middle, stride 1: tiles of 8 by kTall points; one box holds the inputs under
//   all
//             taps of a tile, and every tap reads them from an address of its own
//   signals   three taps, any stride that fits: tiles of 8 * kTall points; a box for each tap
//
// An output element is its bias added to the sum over steps of 64 channels, within one over the taps, within
// one over four steps of 16 channels, whatever the tile.
#include "core/backend/cuda/conv_places.cuh"
#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/plane_products.cuh"
#include "core/backend/cuda/tensor_map.h"

namespace volley::cuda {
namespace {

constexpr int kGroupThreads = 128;  // four warps that multiply together
constexpr int kTileWide = 8;
constexpr int kChannels = 64;  // of a stage
constexpr int kPlaneChannels = 8;
constexpr int kPlanes = kChannels / kPlaneChannels;
[[maybe_unused]] constexpr int kSteps = kChannels / 16;  // of a tap

enum class Kind { kPlane, kLine };  // a picture, a signal
constexpr int kLineTaps = 3;

struct TileConv {
  const uint4* weight;
  const float* bias;
  int channels, out_channels;
  int height, width;  // of the output
  int stride, pad;    // of a signal
  Accumulate accumulate;
  float* out;
};

// kBoxTap: taps of a side that share a box.
template <Kind kKind, int kGroups, int kTall, int kBoxTap, int kRing, int kStages>
struct ConvTiles {
  static constexpr bool kLine = kKind == Kind::kLine;
  static constexpr int kMargin = kBoxTap / 2;
  static constexpr int kBoxWide = kTileWide + 2 * kMargin, kBoxHigh = kTall + 2 * kMargin;
  static constexpr int kPoints = kTileWide * kTall;
  static constexpr int kRowBytes = kBoxWide * 16;
  static constexpr int kPlaneBytes = kBoxHigh * kRowBytes;
  static constexpr int kStageBytes = kPlanes * kPlaneBytes;
  static constexpr int kThreads = kGroups * kGroupThreads;
};

[[maybe_unused]] __device__ inline uint4 read_weights(const uint4* from) {
  uint4 a;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(a.x), "=r"(a.y), "=r"(a.z), "=r"(a.w)
               : "l"(from));
  return a;
}

template <Kind kKind, int kGroups, int kTall, int kBoxTap, int kRing, int kStages>
__global__ void __launch_bounds__(kGroups* kGroupThreads)
    convolve_planes(const __grid_constant__ CUtensorMap planes, TileConv args) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Tiles = ConvTiles<kKind, kGroups, kTall, kBoxTap, kRing, kStages>;
  constexpr int kBoxTaps = kBoxTap * kBoxTap, kTaps = Tiles::kLine ? kLineTaps : kBoxTaps;
  constexpr int kUnrolled =
      kBoxTaps % kRing == 0 ? kBoxTaps : kRing;  // steps between equal places of the ring
  extern __shared__ __align__(128) uint4 stages[];
  __shared__ Barrier full[kStages], empty[kStages];
  const uint32_t memory = shared_address(stages);
  const int across = (args.width + kTileWide - 1) / kTileWide;
  const int top = Tiles::kLine ? 0 : blockIdx.x / across * kTall;
  const int left = Tiles::kLine ? blockIdx.x * Tiles::kPoints : blockIdx.x % across * kTileWide;
  const int count = args.channels / kChannels * kTaps, boxes = count / kBoxTaps;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      full[s].init(1);
      empty[s].init(kGroups);
    }
    publish_barriers();
  }
  __syncthreads();
  const auto bring = [&](bool active, int box) {
    const int stage = box % kStages, chunk = Tiles::kLine ? box / kTaps : box;
    const int plane = (static_cast<int>(blockIdx.z) * args.channels + chunk * kChannels) / kPlaneChannels;
    const BoxPlace place =
        Tiles::kLine
            ? BoxPlace{.x = 0, .y = left * args.stride + box % kTaps - args.pad, .z = plane}
            : BoxPlace{.x = (left - Tiles::kMargin) * kPlaneChannels, .y = top - Tiles::kMargin, .z = plane};
    bring_box(active, memory + stage * Tiles::kStageBytes, Tiles::kStageBytes, planes, place, full[stage]);
  };

  const int panel = blockIdx.y * (4 * kGroups) + warp, steps = args.channels / 16;
  // Warps behind the last channels multiply what nobody reads.
  const int known_panel = min(panel, (args.out_channels - 1) / 16);
  const uint4* weight = args.weight + int64_t{known_panel} * kTaps * steps * kWarp + lane;
  uint4 a[kRing][kSteps];
  const auto load = [&](int step, uint4(&to)[kSteps]) {
    const int known = min(step, count - 1);
    const uint4* from = weight + (known % kTaps * steps + known / kTaps * kSteps) * kWarp;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) to[s] = read_weights(from + s * kWarp);
  };
#pragma unroll
  for (int r = 0; r < kRing - 1; ++r) load(r, a[r]);
  float sums[kTall][4] = {};
  await_previous();
#pragma unroll
  for (int box = 0; box < kStages; ++box) bring(threadIdx.x == 0 && box < boxes, box);
  for (int begin = 0; begin < count; begin += kUnrolled) {
#pragma unroll
    for (int u = 0; u < kUnrolled; ++u) {
      const int step = begin + u, box = step / kBoxTaps, tap = kBoxTaps == 1 ? 0 : u % kBoxTaps;
      const int stage = box % kStages;
      if (tap == 0) full[stage].wait(box / kStages % 2);
      const uint32_t points =
          memory + stage * Tiles::kStageBytes + tap / kBoxTap * Tiles::kRowBytes + tap % kBoxTap * 16;
      begin_groups();
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        multiply_points(sums, a[u % kRing][s],
                        points_at(points + 2 * s * Tiles::kPlaneBytes, Tiles::kPlaneBytes, Tiles::kRowBytes));
      }
      end_group();
      await_groups<1>();
      // What the step before this one has read is free.
      load(step + kRing - 1, a[(u + kRing - 1) % kRing]);
      if (tap == 0 && box > 0 && threadIdx.x % kGroupThreads == 0) {
        empty[(box - 1) % kStages].arrive();
      }
      // By then the other warps have left the stage before this one as well.
      if (tap == kBoxTaps / 2) {
        const int next = box - 1 + kStages;
        const bool refills = box > 0 && next < boxes;
        if (refills) empty[next % kStages].wait((next / kStages - 1) % 2);
        bring(refills && threadIdx.x == 0, next);
      }
    }
  }
  await_groups<0>();
#pragma unroll
  for (int i = 0; i < kTall; ++i) pin(sums[i]);

  const auto left_of = [&](int i) { return left + lane % 4 * 2 + (Tiles::kLine ? kTileWide * i : 0); };
  const int64_t area = int64_t{args.height} * args.width;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int channel = panel * 16 + lane / 4 + 8 * half;
    if (channel >= args.out_channels) continue;
    const float bias = args.bias[channel];
    float* plane = args.out + (int64_t{blockIdx.z} * args.out_channels + channel) * area;
    const auto exists = [&](int i) {
      return (Tiles::kLine ? 0 : top + i) < args.height && left_of(i) < args.width;
    };
    const auto place = [&](int i) {
      return reinterpret_cast<float2*>(plane + (Tiles::kLine ? 0 : int64_t{top + i} * args.width) +
                                       left_of(i));
    };
    // What is added to is on its way all at once.
    float2 before[kTall] = {};
    if (args.accumulate == Accumulate::kAdd) {
#pragma unroll
      for (int i = 0; i < kTall; ++i) {
        if (exists(i)) before[i] = *place(i);
      }
    }
#pragma unroll
    for (int i = 0; i < kTall; ++i) {
      float2 sum = make_float2(sums[i][2 * half] + bias, sums[i][2 * half + 1] + bias);
      if (args.accumulate == Accumulate::kAdd) sum = make_float2(before[i].x + sum.x, before[i].y + sum.y);
      if (exists(i)) *place(i) = sum;
    }
  }
#endif
}

template <Kind kKind, int kGroups, int kTall, int kBoxTap, int kRing, int kStages>
void launch_tiles(const Conv2dArgs& args, const std::byte* planes, const Stream& stream) {
  using Tiles = ConvTiles<kKind, kGroups, kTall, kBoxTap, kRing, kStages>;
  constexpr auto kPromotion = CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
  const ConvPlaces places(args);
  const auto height = static_cast<cuuint64_t>(places.height), width = static_cast<cuuint64_t>(places.width);
  const auto count = static_cast<cuuint64_t>(args.x.shape[0] * places.channels / kPlaneChannels);
  const auto stride = static_cast<cuuint32_t>(places.stride_w);
  // A box takes every stride-th point.
  const BoxMap boxes = Tiles::kLine
                           ? BoxMap{.elements = planes,
                                    .sizes = {kPlaneChannels, width, count},
                                    .strides = {16, width * 16},
                                    .box = {kPlaneChannels, Tiles::kPoints * stride, kPlanes},
                                    .steps = {1, stride, 1},
                                    .promotion = kPromotion}
                           : BoxMap{.elements = planes,
                                    .sizes = {width * kPlaneChannels, height, count},
                                    .strides = {width * 16, height * width * 16},
                                    .box = {Tiles::kBoxWide * kPlaneChannels, Tiles::kBoxHigh, kPlanes},
                                    .promotion = kPromotion};
  const unsigned tiles = Tiles::kLine
                             ? blocks_of(places.out_width, Tiles::kPoints)
                             : blocks_of(places.out_width, kTileWide) * blocks_of(places.out_height, kTall);
  const dim3 grid(tiles, blocks_of(places.out_channels, 64 * kGroups),
                  static_cast<unsigned>(args.x.shape[0]));
  launch("conv2d wgmma", convolve_planes<kKind, kGroups, kTall, kBoxTap, kRing, kStages>,
         Geometry{.grid = grid, .threads = Tiles::kThreads, .shared_bytes = kStages * Tiles::kStageBytes},
         stream, tensor_map(boxes),
         TileConv{.weight = reinterpret_cast<const uint4*>(args.weight.data.data()),
                  .bias = reinterpret_cast<const float*>(args.weight.bias.data()),
                  .channels = places.channels,
                  .out_channels = places.out_channels,
                  .height = places.out_height,
                  .width = places.out_width,
                  .stride = places.stride_w,
                  .pad = places.pad_left,
                  .accumulate = args.accumulate,
                  .out = args.out.data});
}

// Steps of weights that a picture's 1x1 kernel and a signal's hold; channels are whole rings of them.
constexpr int kSmallRing = 2, kLineRing = 6;
constexpr int kLineTall = 8;

bool is_plane(const ConvPlaces& places) {
  const int kernel = places.kernel_h;
  return places.kernel_w == kernel && (kernel == 1 || kernel == 3) && places.stride_h == 1 &&
         places.stride_w == 1 && places.out_height == places.height && places.out_width == places.width &&
         places.pad_top == kernel / 2 && places.pad_left == kernel / 2 &&
         places.channels % (kernel == 1 ? kSmallRing * kChannels : kChannels) == 0;
}
bool is_line(const ConvPlaces& places) {
  constexpr int kMostBox = 256;
  return places.height == 1 && places.out_height == 1 && places.kernel_h == 1 && places.stride_h == 1 &&
         places.pad_top == 0 && places.kernel_w == kLineTaps &&
         kLineTall * kTileWide * places.stride_w <= kMostBox &&
         places.channels * kLineTaps % (kLineRing * kChannels) == 0;
}

}  // namespace

bool takes_rounded_planes(const Conv2dArgs& args) {
  const ConvPlaces places(args);
  return args.weight.type == WeightType::kBF16 && places.out_width % 2 == 0 && is_aligned(args.out.data, 8) &&
         (is_plane(places) || is_line(places));
}

// The larger the tile the less is read, if most of a device keeps busy; the bits are the same.
void launch_conv2d_planes(const Conv2dArgs& args, const std::byte* planes, const Stream& stream) {
  constexpr int64_t kBlocks = 120;
  const int64_t points = args.out.shape[0] * args.out.shape[2] * args.out.shape[3];
  const int64_t channels = args.weight.out_channels;
  const auto fills = [&](int64_t groups, int64_t tile) {
    return (groups == 1) == (channels <= 64) &&
           ceil_div(points, tile) * ceil_div(channels, 64 * groups) >= kBlocks;
  };
  if (!is_plane(ConvPlaces(args))) {
    if (fills(2, kLineTall * kTileWide))
      return launch_tiles<Kind::kLine, 2, kLineTall, 1, kLineRing, 12>(args, planes, stream);
    return launch_tiles<Kind::kLine, 1, kLineTall, 1, kLineRing, 12>(args, planes, stream);
  }
  if (args.weight.kernel_h == 1) {
    if (fills(2, 128)) return launch_tiles<Kind::kPlane, 2, 16, 1, kSmallRing, 4>(args, planes, stream);
    return launch_tiles<Kind::kPlane, 1, 8, 1, kSmallRing, 4>(args, planes, stream);
  }
  if (fills(1, 256)) return launch_tiles<Kind::kPlane, 1, 32, 3, 3, 2>(args, planes, stream);
  if (fills(2, 256)) return launch_tiles<Kind::kPlane, 2, 32, 3, 3, 3>(args, planes, stream);
  if (fills(2, 128)) return launch_tiles<Kind::kPlane, 2, 16, 3, 3, 4>(args, planes, stream);
  if (fills(2, 64)) return launch_tiles<Kind::kPlane, 2, 8, 3, 9, 6>(args, planes, stream);
  launch_tiles<Kind::kPlane, 1, 8, 3, 9, 6>(args, planes, stream);
}

}  // namespace volley::cuda
