// Attention of few rows over a paged cache in f32, and over dense rows. Keys are reduced in logical order in
// chunks of kKeyChunk: which lane multiplies and adds the i-th visible key depends on i and the head's width
// alone. Over a cache in bf16 it is what attention_bf16.cu does not take: heads of odd widths.
#include <cstddef>
#include <string>
#include <type_traits>

#include "core/backend/cuda/attention_rows.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/products_bf16.cuh"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMostWidth = 512;
static_assert(kThreads == kKeyChunk);  // a thread finds one key's place
// Lanes that share a key's dot product, and keys that a group of lanes reads side by side.
constexpr int kKeyLanes = 8;
constexpr int kTurnKeys = kThreads / kKeyLanes;
// Few blocks read far ahead, many leave registers for each other.
enum class Spread { kFewBlocks, kManyBlocks };
template <Spread kSpread>
inline constexpr int kKeysAhead = kSpread == Spread::kFewBlocks ? 8 : 4;
template <Spread kSpread>
inline constexpr int kBlocks = kSpread == Spread::kFewBlocks ? 1 : 3;  // of a processor

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
  static __device__ float4 join(float4 total, float keep, float4 part, float share) {
    return make_float4(total.x * keep + part.x * share, total.y * keep + part.y * share,
                       total.z * keep + part.z * share, total.w * keep + part.w * share);
  }
};
template <>
struct Lanes<float> {
  static constexpr int kSize = 1;
  static __device__ float dot(float a, float b, float sum) { return fmaf(a, b, sum); }
  static __device__ float zero() { return 0.0f; }
  static __device__ float add(float weight, float a, float sum) { return fmaf(weight, a, sum); }
  static __device__ float join(float total, float keep, float part, float share) {
    return total * keep + part * share;
  }
};

// Cached elements as f32.
template <typename Vec>
__device__ Vec read_vector(const float* elements, int v) {
  return reinterpret_cast<const Vec*>(elements)[v];
}
template <typename Vec>
__device__ Vec read_vector(const uint16_t* elements, int v) {
  static_assert(std::is_same_v<Vec, float>);
  return __uint_as_float(uint32_t{elements[v]} << 16);
}

// One head of the rows of a block. A row that is not active is left alone. Element is float or the bits of a
// bf16.
template <int kRows, typename Element>
struct Head {
  const float* q;  // of the first row; rows are `stride` apart
  const Element* keys;
  const Element* values;
  float* out;  // like q
  int64_t stride;
  int width;
  float scale;
  bool active[kRows];
  int counts[kRows];  // keys of each row, 0 where it is not active
  int shared;         // keys before this one are the same for all active rows
};

template <int kRows>
struct Shared {
  alignas(16) float q[kRows][kMostWidth];
  float weights[kRows][kKeyChunk];  // scores, until they are used
  int64_t places[kRows][kKeyChunk];
  alignas(16) float values[kRows][kThreads * 4];
  // Of the chunk: how what was before it and what is in it count; of all so far: the sum of the weights.
  float keep[kRows];
  float share[kRows];
  float denominators[kRows];
};

// An element by an index that is no constant, without an array in memory.
template <int kRows>
__device__ int chosen(const int (&values)[kRows], int index) {
  int value = values[0];
#pragma unroll
  for (int r = 1; r < kRows; ++r) value = index == r ? values[r] : value;
  return value;
}

// Sum of a group of lanes, in its first.
__device__ inline float key_sum(float sum) {
#pragma unroll
  for (int step = kKeyLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  return sum;
}

// Scaled dot products of a chunk's keys into shared.weights.
template <typename Vec, int kRows, Spread kSpread, typename Element>
__device__ void score(const Head<kRows, Element>& head, int begin, Shared<kRows>& shared) {
  constexpr int kAhead = kKeysAhead<kSpread>;
  constexpr int kUnrolled = kSpread == Spread::kFewBlocks ? 2 : 1;
  const int lane = threadIdx.x % kKeyLanes, first = threadIdx.x / kKeyLanes;
  const int vectors = head.width / Lanes<Vec>::kSize;
  const int together = min(head.shared - begin, static_cast<int>(kKeyChunk));
  const auto key_of = [&](int row, int i) { return head.keys + shared.places[row][i]; };
  const auto q_of = [&](int row) { return reinterpret_cast<const Vec*>(shared.q[row]); };
  for (int turn = 0; turn < together; turn += kAhead * kTurnKeys) {
    const Element* rows[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int i = turn + a * kTurnKeys + first;
      rows[a] = key_of(0, i < together ? i : 0);
    }
    float sums[kAhead][kRows] = {};
#pragma unroll kUnrolled
    for (int v = lane; v < vectors; v += kKeyLanes) {
      Vec key[kAhead];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) key[a] = read_vector<Vec>(rows[a], v);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const Vec q = q_of(r)[v];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) sums[a][r] = Lanes<Vec>::dot(q, key[a], sums[a][r]);
      }
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int i = turn + a * kTurnKeys + first;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float sum = key_sum(sums[a][r]);
        if (lane == 0 && i < together) shared.weights[r][i] = sum * head.scale;
      }
    }
  }
  // Keys that each row has for itself.
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int end = min(head.counts[r] - begin, static_cast<int>(kKeyChunk));
    for (int turn = max(together, 0); turn < end; turn += kTurnKeys) {
      const int i = turn + first;
      float sum = 0.0f;
      if (i < end) {
        const Element* key = key_of(r, i);
        for (int v = lane; v < vectors; v += kKeyLanes) {
          sum = Lanes<Vec>::dot(q_of(r)[v], read_vector<Vec>(key, v), sum);
        }
      }
      sum = key_sum(sum);
      if (lane == 0 && i < end) shared.weights[r][i] = sum * head.scale;
    }
  }
}

// One head of all rows of a block. Threads own columns of the output; `groups` threads share a column, each
// with every groups-th key. Which thread adds a key, and when, depends on the key's index in its row alone.
template <typename Vec, int kRows, Spread kSpread, typename Element, typename Keys>
__device__ void attend(const Head<kRows, Element>& head, const Keys& keys, Shared<kRows>& shared) {
  using V = Lanes<Vec>;
  constexpr int kUnrolled = kSpread == Spread::kFewBlocks ? 8 : 4;
  const int columns = head.width / V::kSize;
  const int groups = max(kThreads / columns, 1);
  const int column = threadIdx.x % columns, group = threadIdx.x / columns;
  const bool owns = group < groups;
  int most = 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    most = max(most, head.counts[r]);
    for (int d = threadIdx.x; d < head.width; d += kThreads) {
      shared.q[r][d] = head.active[r] ? head.q[r * head.stride + d] : 0.0f;
    }
  }
  Vec totals[kRows];
  float maximum = -INFINITY, denominator = 0.0f;  // of a warp's row
#pragma unroll
  for (int r = 0; r < kRows; ++r) totals[r] = V::zero();
  for (int begin = 0; begin < most; begin += kKeyChunk) {
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int i = begin + static_cast<int>(threadIdx.x);
      if (i < head.counts[r]) shared.places[r][threadIdx.x] = keys.place(r, i);
    }
    // Row 0 may have ended before the keys that all rows share have: none is shared behind it.
    __syncthreads();
    score<Vec, kRows, kSpread, Element>(head, begin, shared);
    __syncthreads();
    // A warp turns the scores of one row into weights.
    const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
    if (warp < kRows) {
      const int end = min(chosen(head.counts, warp) - begin, static_cast<int>(kKeyChunk));
      float scores[kKeyChunk / kWarp];
      float chunk_maximum = -INFINITY;
#pragma unroll
      for (int j = 0; j < kKeyChunk / kWarp; ++j) {
        const int i = j * kWarp + lane;
        scores[j] = i < end ? shared.weights[warp][i] : -INFINITY;
        chunk_maximum = fmaxf(chunk_maximum, scores[j]);
      }
      chunk_maximum = warp_max(chunk_maximum);
      float chunk_sum = 0.0f;
#pragma unroll
      for (int j = 0; j < kKeyChunk / kWarp; ++j) {
        const int i = j * kWarp + lane;
        if (i >= end) break;
        const float weight = expf(scores[j] - chunk_maximum);
        shared.weights[warp][i] = weight;
        chunk_sum += weight;
      }
      chunk_sum = warp_sum(chunk_sum);
      // A row whose keys have ended keeps what it has.
      const float joined = fmaxf(maximum, chunk_maximum);
      const float kept = end <= 0 ? 1.0f : expf(maximum - joined);
      const float added = end <= 0 ? 0.0f : expf(chunk_maximum - joined);
      denominator = denominator * kept + chunk_sum * added;
      maximum = joined;
      if (lane == 0) {
        shared.keep[warp] = kept;
        shared.share[warp] = added;
        shared.denominators[warp] = denominator;
      }
    }
    __syncthreads();
    if (!owns) continue;
    Vec sums[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r] = V::zero();
    const auto value_of = [&](int row, int i) {
      return read_vector<Vec>(head.values + shared.places[row][i], column);
    };
    const int together = min(head.shared - begin, static_cast<int>(kKeyChunk));
    int i = group;
#pragma unroll kUnrolled
    for (; i < together; i += groups) {
      const Vec value = value_of(0, i);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] = V::add(shared.weights[r][i], value, sums[r]);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int end = min(head.counts[r] - begin, static_cast<int>(kKeyChunk));
      for (int own = i; own < end; own += groups)
        sums[r] = V::add(shared.weights[r][own], value_of(r, own), sums[r]);
      totals[r] = V::join(totals[r], shared.keep[r], sums[r], shared.share[r]);
    }
  }
  // Partial columns are joined in the order of the groups.
  if (owns) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      reinterpret_cast<Vec*>(shared.values[r])[group * columns + column] = totals[r];
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (!head.active[r]) continue;
    for (int d = threadIdx.x; d < head.width; d += kThreads) {
      float value = 0.0f;
      for (int g = 0; g < groups; ++g) value += shared.values[r][g * head.width + d];
      head.out[r * head.stride + d] = head.counts[r] > 0 ? value / shared.denominators[r] : 0.0f;
    }
  }
}

// The keys of a block's rows in the cache.
template <int kRows>
struct PagedKeys {
  const BlockRows<kRows>& rows;
  PlaneLayout layout;
  int64_t group;  // offset of the head's group
  __device__ int64_t place(int row, int i) const { return layout.offset(rows.visible(row).entry(i)) + group; }
};

template <typename Vec, int kRows, Spread kSpread, typename Element>
__global__ void __launch_bounds__(kThreads, kBlocks<kSpread>) cache_attention(CacheAttention args) {
  __shared__ Shared<kRows> shared;
  __shared__ BlockRows<kRows> rows;
  const auto range = BlockRows<kRows>::range(args, blockIdx.y);
  rows.find(args, range, static_cast<int>(threadIdx.x));
  await_previous();
  __syncthreads();
  const RowCounts<kRows> known(rows);
  if (!known.any()) return;
  const int head = static_cast<int>(blockIdx.x);
  const int64_t width = args.layout.width, stride = args.heads * width;
  const int64_t at = range.first * stride + head * width;
  Head<kRows, Element> work{.q = args.q + at,
                            .keys = reinterpret_cast<const Element*>(args.keys),
                            .values = reinterpret_cast<const Element*>(args.values),
                            .out = args.out + at,
                            .stride = stride,
                            .width = static_cast<int>(width),
                            .scale = args.scale,
                            .shared = known.shared};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    work.active[r] = rows.counts[r] >= 0;
    work.counts[r] = max(rows.counts[r], 0);
  }
  attend<Vec, kRows, kSpread, Element>(work, PagedKeys<kRows>{rows, args.layout, args.group_offset(head)},
                                       shared);
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

// The keys of an item of dense attention: its rows.
struct DenseKeys {
  int64_t stride;
  __device__ int64_t place(int, int i) const { return i * stride; }
};

template <typename Vec, int kRows>
__global__ void __launch_bounds__(kThreads, 2) dense_rows(DenseRows args) {
  __shared__ Shared<kRows> shared;
  await_previous();
  const int64_t item = blockIdx.z, first = int64_t{blockIdx.y} * kRows, head = blockIdx.x;
  const int64_t stride = int64_t{args.heads} * args.width;
  const int64_t base = (item * args.rows * args.heads + head) * args.width;
  Head<kRows, float> work{.q = args.q + base + first * stride,
                          .keys = args.keys + base,
                          .values = args.values + base,
                          .out = args.out + base + first * stride,
                          .stride = stride,
                          .width = args.width,
                          .scale = args.scale,
                          .shared = static_cast<int>(args.rows)};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    work.active[r] = first + r < args.rows;
    work.counts[r] = static_cast<int>(args.rows);  // a row behind the last computes what nobody reads
  }
  attend<Vec, kRows, Spread::kManyBlocks, float>(work, DenseKeys{stride}, shared);
}

struct WeightRows {
  CacheAttention attention;
  int head;
  int64_t columns;
  float* out;
};

// One block a row: scores, then the softmax over all of them.
template <typename Element>
__global__ void __launch_bounds__(kThreads) attention_weight_rows(WeightRows args) {
  await_previous();
  __shared__ float partials[kWarps];
  const int64_t row = blockIdx.x;
  const CacheAttention& attention = args.attention;
  const VisibleKeys visible(attention.tables, attention.source, row);
  if (!visible.active()) return;
  const int64_t width = attention.layout.width;
  const int64_t group = attention.group_offset(args.head);
  const float* q = attention.q + (row * attention.heads + args.head) * width;
  float* out = args.out + row * args.columns;
  const int64_t count = visible.size();
  float maximum = -INFINITY;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const auto* key =
        reinterpret_cast<const Element*>(attention.keys) + attention.layout.offset(visible.entry(i)) + group;
    float dot = 0.0f;
    for (int64_t d = 0; d < width; ++d) dot = fmaf(q[d], read_vector<float>(key, static_cast<int>(d)), dot);
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

// Vectors are four wide and at most as many as there are threads, and so are scalars.
void check_width(int64_t width, bool by_fours) {
  const int64_t most = by_fours ? kMostWidth : kThreads;
  if (width > most) {
    throw Error("cuda: heads of " + std::to_string(width) + " elements; at most " + std::to_string(most));
  }
}

}  // namespace

void launch_attention(const AttentionArgs& args, const Stream& stream) {
  const int64_t width = args.q.shape[2];
  if (args.q.shape[0] == 0) return;
  const bool is_bf16 = args.plane.type == CacheType::kBF16;
  if (is_bf16 && takes_bf16_vectors(width)) return launch_bf16_attention(args, {}, stream);
  const bool by_fours = !is_bf16 && width % 4 == 0;
  check_width(width, by_fours);
  const auto run = [&](auto kernel, int64_t count) {
    const AttentionGrid grid(args, count);
    launch("attention", kernel, grid.blocks, kThreads, stream, grid.device);
  };
  if (is_bf16) return run(cache_attention<float, 1, Spread::kManyBlocks, uint16_t>, 1);
  if (is_few(args)) {
    return run(by_fours ? cache_attention<float4, 1, Spread::kFewBlocks, float>
                        : cache_attention<float, 1, Spread::kFewBlocks, float>,
               1);
  }
  with_rows(rows_together(args), [&](auto count) {
    run(by_fours ? cache_attention<float4, count, Spread::kManyBlocks, float>
                 : cache_attention<float, count, Spread::kManyBlocks, float>,
        count);
  });
}

void launch_attention_weights(const AttentionWeightsArgs& args, const Stream& stream) {
  const int64_t rows = args.attention.q.shape[0];
  if (rows == 0) return;
  const auto kernel = args.attention.plane.type == CacheType::kF32 ? attention_weight_rows<float>
                                                                   : attention_weight_rows<uint16_t>;
  launch("attention_weights", kernel, static_cast<unsigned>(rows), kThreads, stream,
         WeightRows{.attention = device_args(args.attention),
                    .head = static_cast<int>(args.head),
                    .columns = args.out.shape[1],
                    .out = args.out.data});
}

void launch_dense_attention(const DenseAttentionArgs& args, const Stream& stream) {
  const int64_t items = args.q.shape[0], rows = args.q.shape[1], heads = args.q.shape[2],
                width = args.q.shape[3];
  if (args.q.size() == 0) return;
  check_width(width, width % 4 == 0);
  with_rows(rows, [&](auto count) {
    const dim3 grid(static_cast<unsigned>(heads), blocks_of(rows, count), static_cast<unsigned>(items));
    const auto kernel = width % 4 == 0 ? dense_rows<float4, count> : dense_rows<float, count>;
    launch("dense_attention", kernel, grid, kThreads, stream,
           DenseRows{.q = args.q.data,
                     .keys = args.k.data,
                     .values = args.v.data,
                     .rows = rows,
                     .heads = static_cast<int>(heads),
                     .width = static_cast<int>(width),
                     .scale = args.scale,
                     .out = args.out.data});
  });
}

}  // namespace volley::cuda
