// Norms. How a row's numbers are summed depends on its width alone.
#include <string>

#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/group_norm.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/products_bf16.cuh"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kNarrow = 256;  // rows up to this width take one warp each

enum class Norm { kLayer, kL2 };

struct NormRows {
  const float* x;
  const float* weight;
  const float* bias;
  float eps;
  int width;
  int64_t rows;
  float* out;
};

// `sum` adds over the threads that share a row; they are kThreadsOfRow, this one is `lane`. Weights are asked
// for before the rows are there.
template <Norm kNorm, int kHeld, int kThreadsOfRow, typename Sum>
__device__ void normalize(const NormRows& args, int64_t row, int lane, const Sum& sum) {
  float x[kHeld], weight[kHeld], bias[kHeld];
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const int i = h * kThreadsOfRow + lane;
    weight[h] = kNorm != Norm::kL2 && i < args.width ? args.weight[i] : 0.0f;
    bias[h] = kNorm == Norm::kLayer && i < args.width ? args.bias[i] : 0.0f;
  }
  await_previous();
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const int i = h * kThreadsOfRow + lane;
    x[h] = i < args.width ? args.x[row * args.width + i] : 0.0f;
  }
  const auto width = static_cast<float>(args.width);
  float mean = 0.0f;
  if (kNorm == Norm::kLayer) {
    float total = 0.0f;
#pragma unroll
    for (int h = 0; h < kHeld; ++h) total += x[h];
    mean = sum(total) / width;
  }
  float squares = 0.0f;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const float difference = h * kThreadsOfRow + lane < args.width ? x[h] - mean : 0.0f;
    squares += difference * difference;
  }
  squares = sum(squares);
  const float scale =
      kNorm == Norm::kL2 ? fmaxf(sqrtf(squares), args.eps) : 1.0f / sqrtf(squares / width + args.eps);
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const int i = h * kThreadsOfRow + lane;
    if (i >= args.width) break;
    float y = kNorm == Norm::kL2 ? x[h] / scale : (x[h] - mean) * scale * weight[h];
    if (kNorm == Norm::kLayer) y += bias[h];
    args.out[row * args.width + i] = y;
  }
}

template <Norm kNorm>
__global__ void narrow_rows(NormRows args) {
  const int64_t row = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= args.rows) return await_previous();
  normalize<kNorm, kNarrow / kWarp, kWarp>(args, row, threadIdx.x % kWarp,
                                           [](float value) { return warp_sum(value); });
}

template <Norm kNorm, int kHeld>
__global__ void wide_rows(NormRows args) {
  __shared__ float partials[kThreads / kWarp];
  normalize<kNorm, kHeld, kThreads>(args, blockIdx.x, threadIdx.x,
                                    [&](float value) { return block_sum(value, partials); });
}

template <Norm kNorm>
void launch_norm(const NormRows& args, const Stream& stream) {
  if (args.rows == 0) return;
  if (args.width <= kNarrow) {
    launch("norm", narrow_rows<kNorm>, blocks_of(args.rows, kThreads / kWarp), kThreads, stream, args);
  } else {
    // The sums of a width are the same whatever a thread could hold.
    const auto kernel = args.width <= 4 * kThreads    ? wide_rows<kNorm, 4>
                        : args.width <= 16 * kThreads ? wide_rows<kNorm, 16>
                                                      : wide_rows<kNorm, 64>;
    if (args.width > 64 * kThreads)
      throw Error("cuda: norm of rows wider than " + std::to_string(64 * kThreads));
    launch("norm", kernel, static_cast<unsigned>(args.rows), kThreads, stream, args);
  }
}

// ---- Layer norm of rows up to kMostHeld wide: a warp takes a row, a lane every 32nd four of its elements.

constexpr int kMostHeld = 2048;

// The results go to `packed` where it has data: rows of whole steps.
template <int kFours>
__global__ void __launch_bounds__(kThreads) layer_norm_rows(NormRows args, bool aligned, PackedRows packed) {
  const int64_t row = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const auto first = [&](int i) { return (i * kWarp + lane) * 4; };
  const auto load = [&](const float* from, int i) {
    const int e = first(i);
    if (aligned)
      return e < args.width ? *reinterpret_cast<const float4*>(from + e)
                            : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const auto at = [&](int j) { return e + j < args.width ? from[e + j] : 0.0f; };
    return make_float4(at(0), at(1), at(2), at(3));
  };
  // Weights are asked for before the rows are there.
  constexpr bool kHolds = kFours <= 6;
  float4 weight[kHolds ? kFours : 1], bias[kHolds ? kFours : 1];
  if constexpr (kHolds) {
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      weight[i] = load(args.weight, i);
      bias[i] = load(args.bias, i);
    }
  }
  await_previous();
  if (row >= args.rows) return;
  float4 x[kFours];
#pragma unroll
  for (int i = 0; i < kFours; ++i) x[i] = load(args.x + row * args.width, i);
  const auto width = static_cast<float>(args.width);
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < kFours; ++i) total += (x[i].x + x[i].y) + (x[i].z + x[i].w);
  const float mean = warp_sum(total) / width;
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const auto difference = [&](int j, float value) {
      return first(i) + j < args.width ? value - mean : 0.0f;
    };
    const float a = difference(0, x[i].x), b = difference(1, x[i].y), c = difference(2, x[i].z),
                d = difference(3, x[i].w);
    squares += (a * a + b * b) + (c * c + d * d);
  }
  const float scale = 1.0f / sqrtf(warp_sum(squares) / width + args.eps);
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int e = first(i);
    if (e >= args.width) break;
    const float4 w = kHolds ? weight[kHolds ? i : 0] : load(args.weight, i),
                 b = kHolds ? bias[kHolds ? i : 0] : load(args.bias, i);
    const float4 y = make_float4((x[i].x - mean) * scale * w.x + b.x, (x[i].y - mean) * scale * w.y + b.y,
                                 (x[i].z - mean) * scale * w.z + b.z, (x[i].w - mean) * scale * w.w + b.w);
    if (packed.data != nullptr) {
      *reinterpret_cast<uint2*>(packed.at(row, e)) = make_uint2(two_bf16(y.x, y.y), two_bf16(y.z, y.w));
      continue;
    }
    float* out = args.out + row * args.width + e;
    if (aligned) {
      *reinterpret_cast<float4*>(out) = y;
    } else {
      const float values[] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (e + j < args.width) out[j] = values[j];
      }
    }
  }
}

void launch_layer_norm_rows(const NormRows& args, const PackedRows& packed, const Stream& stream) {
  const bool aligned = args.width % 4 == 0 && is_aligned(args.x, sizeof(float4)) &&
                       is_aligned(args.weight, sizeof(float4)) && is_aligned(args.bias, sizeof(float4)) &&
                       is_aligned(args.out, sizeof(float4));
  // The sums of a width are the same whatever a lane could hold.
  constexpr int kFour = 4 * kWarp;
  const auto kernel = args.width <= 2 * kFour   ? layer_norm_rows<2>
                      : args.width <= 6 * kFour ? layer_norm_rows<6>
                                                : layer_norm_rows<kMostHeld / kFour>;
  launch("layer_norm", kernel, blocks_of(args.rows, kThreads / kWarp), kThreads, stream, args, aligned,
         packed);
}

NormRows norm_rows(const LayerNormArgs& args) {
  const int64_t width = args.weight.size();
  return {.x = args.x.data,
          .weight = args.weight.data,
          .bias = args.bias.data,
          .eps = args.eps,
          .width = static_cast<int>(width),
          .rows = args.x.size() / width,
          .out = args.out.data};
}

// ---- RMS norm: a block takes eight rows

struct RmsNormRows {
  InputRows rows;
  NormWeights norm;
  float* out;
  bool aligned;  // all of it
};

constexpr int kRmsThreads = 128;

// 1 / rms of row first + lane / 4, by a block of whole warps. `partials` is shared memory [steps, 8].
__device__ float rms_scale(const InputRows& rows, int64_t first, float eps, float* partials) {
  constexpr int kTogether = 4;  // steps
  const int lane = threadIdx.x % kWarp, warps = static_cast<int>(blockDim.x) / kWarp, steps = rows.steps();
  for (int step = static_cast<int>(threadIdx.x) / kWarp; step < steps; step += kTogether * warps) {
    LaneInputs inputs[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int at = step + i * warps;
      inputs[i] = rows.load(at < steps ? first + lane / 4 : rows.count, at, lane);
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) hold_squares<1>(inputs[i], step + i * warps, steps, 0, partials);
  }
  __syncthreads();
  float sum = 0.0f;
  for (int step = lane % 4; step < steps; step += 4) sum += partials[step * 8 + lane / 4];
  return 1.0f / sqrtf(row_sum(sum) / static_cast<float>(rows.in_features) + eps);
}

__global__ void __launch_bounds__(kRmsThreads) rms_norm_rows(RmsNormRows args) {
  extern __shared__ float partials[];
  const InputRows& rows = args.rows;
  const int steps = rows.steps(), lane = threadIdx.x % kWarp;
  const HeldNorm weight(partials + steps * 8);
  weight.hold(args.norm, rows);
  const int64_t first = int64_t{blockIdx.x} * 8, row = first + lane / 4;
  await_previous();
  const float scale = rms_scale(rows, first, args.norm.eps, partials);
  if (row >= rows.count) return;
#pragma unroll 4
  for (int step = threadIdx.x / kWarp; step < steps; step += kRmsThreads / kWarp) {
    const LaneInputs y = normed(rows.load(row, step, lane), scale, weight.load(step, lane));
    const int k = step * kStep + lane % 4 * kLaneInputs;
    float* out = args.out + row * rows.in_features + k;
    if (args.aligned) {
      reinterpret_cast<float4*>(out)[0] = y.low;
      reinterpret_cast<float4*>(out)[1] = y.high;
    } else {
      const float values[kLaneInputs] = {y.low.x,  y.low.y,  y.low.z,  y.low.w,
                                         y.high.x, y.high.y, y.high.z, y.high.w};
#pragma unroll
      for (int i = 0; i < kLaneInputs; ++i) {
        if (k + i < rows.in_features) out[i] = values[i];
      }
    }
  }
}

// ---- Group norm

// A thread has four neighbours at a time.
__global__ void group_moments(const float* x, int64_t group_size, bool aligned, Moments* moments) {
  constexpr int kVectors = kStatisticsChunk / 4 / kThreads, kWarps = kThreads / kWarp;
  await_previous();
  __shared__ Moments partials[kWarps];
  const float* chunk = x + blockIdx.y * group_size + blockIdx.x * kStatisticsChunk;
  const int64_t rest = group_size - blockIdx.x * kStatisticsChunk;
  const int count = rest < kStatisticsChunk ? static_cast<int>(rest) : kStatisticsChunk;
  float values[kVectors][4];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int first = (v * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (aligned && first + 4 <= count) {
      const float4 four = *reinterpret_cast<const float4*>(chunk + first);
      values[v][0] = four.x, values[v][1] = four.y, values[v][2] = four.z, values[v][3] = four.w;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) values[v][i] = first + i < count ? chunk[first + i] : 0.0f;
    }
  }
  Moments sums{0.0, 0.0};
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const double value = values[v][i];
      sums.sum += value;
      sums.squares += value * value;
    }
  }
  sums = {warp_sum(sums.sum), warp_sum(sums.squares)};
  if (threadIdx.x % kWarp == 0) partials[threadIdx.x / kWarp] = sums;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kWarps; ++w) {
    sums.sum += partials[w].sum;
    sums.squares += partials[w].squares;
  }
  moments[blockIdx.y * gridDim.x + blockIdx.x] = sums;
}

struct GroupRows {
  const float* x;
  const float* weight;
  const float* bias;
  const Moments* moments;
  float eps;
  int64_t groups;
  int64_t group_size;
  int64_t area;
  bool swish;
  float* out;
};

__global__ void normalize_groups(GroupRows args) {
  await_previous();
  const int64_t group = blockIdx.y;
  const GroupScale scale =
      group_scale(args.moments + group * gridDim.x, gridDim.x, args.group_size, args.eps);
  const int64_t first_channel = group % args.groups * (args.group_size / args.area);
  const auto area = static_cast<unsigned>(args.area);
  const int64_t begin = blockIdx.x * kStatisticsChunk;
  const int64_t end = begin + kStatisticsChunk < args.group_size ? begin + kStatisticsChunk : args.group_size;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int64_t channel = first_channel + static_cast<unsigned>(i) / area;
    args.out[group * args.group_size + i] = scale.apply(args.x[group * args.group_size + i],
                                                        args.weight[channel], args.bias[channel], args.swish);
  }
}

int64_t group_size(const GroupNormArgs& args) {
  return args.x.shape[1] / args.groups * args.x.shape[2] * args.x.shape[3];
}

}  // namespace

void launch_rms_norm(const RmsNormArgs& args, const Stream& stream) {
  const InputRows rows(args.x.data, args.weight.size(), args.x.size() / args.weight.size());
  if (rows.count == 0) return;
  const bool aligned = rows.aligned && reinterpret_cast<uintptr_t>(args.out.data) % sizeof(float4) == 0;
  launch("rms_norm", rms_norm_rows,
         Geometry{.grid = dim3(blocks_of(rows.count, 8)),
                  .threads = kRmsThreads,
                  .shared_bytes = rms_partials_bytes(rows, 1) + HeldNorm::bytes(rows)},
         stream,
         RmsNormRows{.rows = rows, .norm = norm_weights(args), .out = args.out.data, .aligned = aligned});
}

void launch_layer_norm(const LayerNormArgs& args, const Stream& stream) {
  const NormRows rows = norm_rows(args);
  if (rows.width > kMostHeld) return launch_norm<Norm::kLayer>(rows, stream);
  if (rows.rows > 0) launch_layer_norm_rows(rows, {}, stream);
}

bool takes_packed_layer_norm(const LayerNormArgs& args) {
  const int64_t width = args.weight.size();
  return width <= kMostHeld && width % kStep == 0;
}

void launch_packed_layer_norm(const LayerNormArgs& args, const PackedRows& packed, const Stream& stream) {
  NormRows rows = norm_rows(args);
  rows.out = nullptr;
  launch_layer_norm_rows(rows, packed, stream);
}

void launch_l2_normalize(const L2NormalizeArgs& args, const Stream& stream) {
  const int64_t width = args.x.shape[-1];
  launch_norm<Norm::kL2>({.x = args.x.data,
                          .weight = nullptr,
                          .bias = nullptr,
                          .eps = args.eps,
                          .width = static_cast<int>(width),
                          .rows = args.x.size() / width,
                          .out = args.out.data},
                         stream);
}

int64_t group_norm_scratch_bytes(const GroupNormArgs& args) {
  return args.x.shape[0] * args.groups * ceil_div(group_size(args), kStatisticsChunk) *
         static_cast<int64_t>(sizeof(Moments));
}

void launch_group_moments(const GroupNormArgs& args, std::byte* scratch, const Stream& stream) {
  const int64_t size = group_size(args);
  const dim3 grid(blocks_of(size, kStatisticsChunk), static_cast<unsigned>(args.x.shape[0] * args.groups));
  const bool aligned = size % 4 == 0 && is_aligned(args.x.data, 16);
  launch("group_moments", group_moments, grid, kThreads, stream, args.x.data, size, aligned,
         reinterpret_cast<Moments*>(scratch));
}

void launch_group_norm(const GroupNormArgs& args, std::byte* scratch, const Stream& stream) {
  if (args.x.size() == 0) return;
  const int64_t size = group_size(args);
  launch_group_moments(args, scratch, stream);
  const dim3 grid(blocks_of(size, kStatisticsChunk), static_cast<unsigned>(args.x.shape[0] * args.groups));
  launch("group_norm", normalize_groups, grid, kThreads, stream,
         GroupRows{.x = args.x.data,
                   .weight = args.weight.data,
                   .bias = args.bias.data,
                   .moments = reinterpret_cast<const Moments*>(scratch),
                   .eps = args.eps,
                   .groups = args.groups,
                   .group_size = size,
                   .area = args.x.shape[2] * args.x.shape[3],
                   .swish = args.swish == Swish::kAfter,
                   .out = args.out.data});
}

}  // namespace volley::cuda
