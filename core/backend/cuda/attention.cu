// Attention of few rows over the paged cache, and over dense rows. Keys are reduced in logical order in
// chunks of kKeyChunk: which lane multiplies and adds the i-th visible key depends on i and the head's width
// alone.
#include <cfloat>

#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/visible_keys.h"

namespace volley::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMostWidth = 512;
// Lanes that share a key's dot product.
constexpr int kKeyLanes = 8;
constexpr int kWarpKeys = kWarp / kKeyLanes;

// Where the keys of a row of the cache lie.
struct PagedKeys {
  VisibleKeys visible;
  PlaneLayout layout;
  int64_t group;  // offset of the head's group
  __device__ int64_t size() const { return visible.active() ? visible.size() : 0; }
  __device__ int64_t offset(int64_t i) const { return layout.offset(visible.entry(i)) + group; }
};

// Where the keys of an item of dense attention lie.
struct DenseKeys {
  int64_t count;
  int64_t first;
  int64_t stride;
  __device__ int64_t size() const { return count; }
  __device__ int64_t offset(int64_t i) const { return first + i * stride; }
};

struct Head {
  const float* q;
  const float* keys;
  const float* values;
  int width;
  float scale;
  float* out;
};

struct Shared {
  float q[kMostWidth];
  float weights[kKeyChunk];
  int64_t offsets[kKeyChunk];
  float values[kThreads * 4];
  float partials[kWarps];
};

// Vec is float4 where heads are a multiple of four wide, else float.
template <typename Vec>
struct Lanes;
template <>
struct Lanes<float4> {
  static constexpr int kSize = 4;
  static __device__ float dot(float4 a, float4 b, float sum) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
  }
  static __device__ float4 zero() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }
  static __device__ float4 add(float weight, float4 a, float4 sum) {
    return make_float4(fmaf(weight, a.x, sum.x), fmaf(weight, a.y, sum.y), fmaf(weight, a.z, sum.z),
                       fmaf(weight, a.w, sum.w));
  }
};
template <>
struct Lanes<float> {
  static constexpr int kSize = 1;
  static __device__ float dot(float a, float b, float sum) { return fmaf(a, b, sum); }
  static __device__ float zero() { return 0.0f; }
  static __device__ float add(float weight, float a, float sum) { return fmaf(weight, a, sum); }
};

// Scaled dot products of the chunk's `count` keys into shared.weights.
template <typename Vec>
__device__ void score(const Head& head, int count, Shared& shared) {
  const int lane = threadIdx.x % kKeyLanes;
  const int vectors = head.width / Lanes<Vec>::kSize;
  const auto* q = reinterpret_cast<const Vec*>(shared.q);
  const int first = threadIdx.x / kKeyLanes;
  // Every lane of a warp goes through the same number of turns: shuffles need them all.
  for (int turn = 0; turn < count; turn += kWarps * kWarpKeys) {
    const int i = turn + first;
    float sum = 0.0f;
    if (i < count) {
      const auto* key = reinterpret_cast<const Vec*>(head.keys + shared.offsets[i]);
      for (int v = lane; v < vectors; v += kKeyLanes) sum = Lanes<Vec>::dot(q[v], key[v], sum);
    }
#pragma unroll
    for (int step = kKeyLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    if (lane == 0 && i < count) shared.weights[i] = sum * head.scale;
  }
}

// The whole of one row's head. Threads own columns of the output; `groups` threads share a column, each with
// every groups-th key.
template <typename Vec, typename Keys>
__device__ void attend(const Head& head, const Keys& keys, Shared& shared) {
  constexpr int kSize = Lanes<Vec>::kSize;
  const int columns = head.width / kSize;
  const int groups = kThreads / columns > 0 ? kThreads / columns : 1;
  const int column = threadIdx.x % columns, group = threadIdx.x / columns;
  const bool owns = columns <= kThreads && group < groups;
  for (int d = threadIdx.x; d < head.width; d += kThreads) shared.q[d] = head.q[d];
  const auto count = static_cast<int>(keys.size());
  Vec total = Lanes<Vec>::zero();
  float maximum = -INFINITY, denominator = 0.0f;
  for (int begin = 0; begin < count; begin += kKeyChunk) {
    const int chunk = min(count - begin, static_cast<int>(kKeyChunk));
    __syncthreads();
    for (int i = threadIdx.x; i < chunk; i += kThreads) shared.offsets[i] = keys.offset(begin + i);
    __syncthreads();
    score<Vec>(head, chunk, shared);
    __syncthreads();
    float chunk_maximum = -INFINITY;
    for (int i = threadIdx.x; i < chunk; i += kThreads)
      chunk_maximum = fmaxf(chunk_maximum, shared.weights[i]);
    chunk_maximum = block_max(chunk_maximum, shared.partials);
    float chunk_sum = 0.0f;
    for (int i = threadIdx.x; i < chunk; i += kThreads) {
      const float weight = expf(shared.weights[i] - chunk_maximum);
      shared.weights[i] = weight;
      chunk_sum += weight;
    }
    chunk_sum = block_sum(chunk_sum, shared.partials);  // its barriers also publish the weights
    Vec sum = Lanes<Vec>::zero();
    if (owns) {
#pragma unroll 4
      for (int i = group; i < chunk; i += groups) {
        const auto* value = reinterpret_cast<const Vec*>(head.values + shared.offsets[i]);
        sum = Lanes<Vec>::add(shared.weights[i], value[column], sum);
      }
    }
    const float joined = fmaxf(maximum, chunk_maximum);
    const float keep = expf(maximum - joined), add = expf(chunk_maximum - joined);
    denominator = denominator * keep + chunk_sum * add;
    const float* part = reinterpret_cast<const float*>(&sum);
    float* whole = reinterpret_cast<float*>(&total);
#pragma unroll
    for (int e = 0; e < kSize; ++e) whole[e] = whole[e] * keep + part[e] * add;
    maximum = joined;
  }
  // Partial columns are joined in the order of the groups.
  if (owns) reinterpret_cast<Vec*>(shared.values)[group * columns + column] = total;
  __syncthreads();
  for (int d = threadIdx.x; d < head.width; d += kThreads) {
    float value = 0.0f;
    for (int g = 0; g < groups; ++g) value += shared.values[g * head.width + d];
    head.out[d] = count > 0 ? value / denominator : 0.0f;
  }
}

struct CacheAttention {
  RowTables tables;
  PlaneLayout layout;
  KeySource source;
  const float* q;
  const float* keys;
  const float* values;
  int heads;
  float scale;
  float* out;
};

template <typename Vec>
__global__ void __launch_bounds__(kThreads) cache_attention(CacheAttention args) {
  await_previous();
  __shared__ Shared shared;
  const int64_t row = blockIdx.y;
  const int head = blockIdx.x;
  const VisibleKeys visible(args.tables, args.source, row);
  if (!visible.active()) return;
  const int64_t width = args.layout.width;
  const int64_t group = head / (args.heads / args.layout.groups);
  const int64_t at = (row * args.heads + head) * width;
  attend<Vec>({.q = args.q + at,
               .keys = args.keys,
               .values = args.values,
               .width = static_cast<int>(width),
               .scale = args.scale,
               .out = args.out + at},
              PagedKeys{visible, args.layout, group * args.layout.group_stride()}, shared);
}

struct DenseRows {
  const float* q;
  const float* keys;
  const float* values;
  int64_t rows;
  int heads;
  int width;
  float scale;
  float* out;
};

template <typename Vec>
__global__ void __launch_bounds__(kThreads) dense_rows(DenseRows args) {
  await_previous();
  __shared__ Shared shared;
  const int64_t item = blockIdx.z, row = blockIdx.y, head = blockIdx.x;
  const int64_t at = ((item * args.rows + row) * args.heads + head) * args.width;
  attend<Vec>({.q = args.q + at,
               .keys = args.keys,
               .values = args.values,
               .width = args.width,
               .scale = args.scale,
               .out = args.out + at},
              DenseKeys{.count = args.rows,
                        .first = (item * args.rows * args.heads + head) * args.width,
                        .stride = int64_t{args.heads} * args.width},
              shared);
}

struct WeightRows {
  CacheAttention attention;
  int head;
  int64_t columns;
  float* out;
};

// One block a row: scores, then the softmax over all of them.
__global__ void __launch_bounds__(kThreads) attention_weight_rows(WeightRows args) {
  await_previous();
  __shared__ float partials[kWarps];
  const int64_t row = blockIdx.x;
  const CacheAttention& attention = args.attention;
  const VisibleKeys visible(attention.tables, attention.source, row);
  if (!visible.active()) return;
  const int64_t width = attention.layout.width;
  const int64_t group =
      args.head / (attention.heads / attention.layout.groups) * attention.layout.group_stride();
  const float* q = attention.q + (row * attention.heads + args.head) * width;
  float* out = args.out + row * args.columns;
  const int64_t count = visible.size();
  float maximum = -INFINITY;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const float* key = attention.keys + attention.layout.offset(visible.entry(i)) + group;
    float dot = 0.0f;
    for (int64_t d = 0; d < width; ++d) dot = fmaf(q[d], key[d], dot);
    out[i] = dot * attention.scale;
    maximum = fmaxf(maximum, out[i]);
  }
  maximum = block_max(maximum, partials);
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    out[i] = expf(out[i] - maximum);
    sum += out[i];
  }
  sum = block_sum(sum, partials);
  for (int64_t i = threadIdx.x; i < count; i += kThreads) out[i] /= sum;
  for (int64_t i = count + threadIdx.x; i < args.columns; i += kThreads) out[i] = 0.0f;
}

CacheAttention device_args(const AttentionArgs& args) {
  return {.tables = RowTables(args.step, args.cache, args.first_row),
          .layout = PlaneLayout(args.plane),
          .source = args.source,
          .q = args.q.data,
          .keys = args.plane.keys.data,
          .values = args.plane.values.data,
          .heads = static_cast<int>(args.q.shape[1]),
          .scale = args.scale,
          .out = args.out.data};
}

void check_width(int64_t width) {
  if (width > kMostWidth) {
    throw Error("cuda: heads of " + std::to_string(width) + " elements; at most " +
                std::to_string(kMostWidth));
  }
}

// Scalars may be as many as there are threads.
bool takes_vectors(int64_t width) {
  return width % 4 == 0;
}

}  // namespace

void launch_attention(const AttentionArgs& args, const Stream& stream) {
  const int64_t rows = args.q.shape[0], heads = args.q.shape[1], width = args.q.shape[2];
  if (rows == 0) return;
  check_width(takes_vectors(width) ? width : 4 * width);
  const dim3 grid(static_cast<unsigned>(heads), static_cast<unsigned>(rows));
  if (takes_vectors(width)) {
    launch("attention", cache_attention<float4>, grid, kThreads, stream, device_args(args));
  } else {
    launch("attention", cache_attention<float>, grid, kThreads, stream, device_args(args));
  }
}

void launch_attention_weights(const AttentionWeightsArgs& args, const Stream& stream) {
  const int64_t rows = args.attention.q.shape[0];
  if (rows == 0) return;
  launch("attention_weights", attention_weight_rows, static_cast<unsigned>(rows), kThreads, stream,
         WeightRows{.attention = device_args(args.attention),
                    .head = static_cast<int>(args.head),
                    .columns = args.out.shape[1],
                    .out = args.out.data});
}

void launch_dense_attention(const DenseAttentionArgs& args, const Stream& stream) {
  const int64_t items = args.q.shape[0], rows = args.q.shape[1], heads = args.q.shape[2],
                width = args.q.shape[3];
  if (args.q.size() == 0) return;
  check_width(takes_vectors(width) ? width : 4 * width);
  const dim3 grid(static_cast<unsigned>(heads), static_cast<unsigned>(rows), static_cast<unsigned>(items));
  const DenseRows rows_args{.q = args.q.data,
                            .keys = args.k.data,
                            .values = args.v.data,
                            .rows = rows,
                            .heads = static_cast<int>(heads),
                            .width = static_cast<int>(width),
                            .scale = args.scale,
                            .out = args.out.data};
  if (takes_vectors(width)) {
    launch("dense_attention", dense_rows<float4>, grid, kThreads, stream, rows_args);
  } else {
    launch("dense_attention", dense_rows<float>, grid, kThreads, stream, rows_args);
  }
}

}  // namespace volley::cuda
