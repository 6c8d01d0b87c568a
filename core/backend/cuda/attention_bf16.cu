// Attention of few rows over a paged cache in bf16, on tensor cores. Up to 16 rows of a sequence are taken
// together, and a head of them by a team of warps, one for each part of the keys, or by one warp, part by
// part: that gives the same bits. Which part and which place in a multiply-accumulate the i-th visible key of
// a row gets depends on i alone, and no row's sums depend on another row, so that neither do the bits.
#include "core/backend/cuda/attention_softmax.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/products_bf16.cuh"
#include "core/backend/cuda/row_groups.cuh"

namespace volley::cuda {
namespace {

constexpr float kLog2E = 1.44269504088896341f;

struct BF16Attention {
  static constexpr int kVectors = kStep / kLaneInputs;  // of a step

  CacheAttention cache;
  PackedRows packed;  // takes the results if it has data; then heads are whole steps

  // The rest of sixteen rows: zeros, by the warp, or team, of the last row.
  template <int kSteps>
  __device__ void pad(int64_t end, int head, int thread, int threads) const {
    if (packed.data == nullptr || end != cache.rows) return;
    const int64_t rows = (end + kTileRows - 1) / kTileRows * kTileRows - end;
    for (int i = thread; i < rows * kSteps * kVectors; i += threads)
      *vector(end + i / (kSteps * kVectors), head * kSteps + i / kVectors % kSteps, i % kVectors) = uint4{};
  }
  // A vector of a row's step.
  __device__ uint4* vector(int64_t row, int step, int v) const {
    return packed.part(row / 8, step) + block_place(static_cast<int>(row % 8) * kVectors + v);
  }
  // Where a row's results of a head go.
  __device__ float* out(int64_t row, int head) const {
    return cache.out + (row * cache.heads + head) * cache.layout.width;
  }
};

template <int kSteps, int kHalves>
struct Queries {
  static constexpr int kRows = kHalves * kHalfRows;
  using Range = typename BlockRows<kRows>::Range;

  LaneInputs inputs[kHalves][kSteps];

  __device__ Queries(const CacheAttention& args, const Range& range, int head) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, width = static_cast<int>(args.layout.width);
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const int64_t row = range.first + h * kHalfRows + lane / 4;
      const auto* q =
          reinterpret_cast<const float4*>(args.q + (row * args.heads + head) * width) + lane % 4 * 2;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const bool there = row < range.end && step * kStep + lane % 4 * kLaneInputs < width;
        const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        inputs[h][step] = {there ? q[step * 8] : zero, there ? q[step * 8 + 1] : zero};
      }
    }
  }
  __device__ void split_to(QueryParts (&parts)[kHalves][kSteps]) const {
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) parts[h][step] = split(inputs[h][step]);
    }
  }
};

// ---- A team of warps for each head

constexpr int kThreads = kParts * kWarp;
constexpr int kBlocks = 3;  // of a processor: shared memory holds what is on its way for as many
constexpr int kStages = 2;  // groups of a warp on their way
template <int kSteps>
constexpr int kWarpBytes = kStages* Heads<kSteps>::kStageBytes;

template <int kSteps, int kHalves>
__global__ void __launch_bounds__(kThreads, kBlocks) attend_by_teams(BF16Attention args) {
  using Shape = Heads<kSteps>;
  constexpr int kRows = kHalves * kHalfRows;
  constexpr int kLine = Shape::kWidth + 8;  // of a row's sums: rows of a warp lie in different banks
  static_assert(kRows * kLine * 4 <= kWarpBytes<kSteps>);
  alignas(128) extern __shared__ std::byte staged[];
  __shared__ BlockKeys<Shape::kKeys, kRows> rows;
  __shared__ float maxima[kParts][kRows], sums[kParts][kRows];
  const auto head = static_cast<int>(blockIdx.x);
  const auto range = BlockRows<kRows>::range(args.cache, blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  if (warp == 0) rows.find(args.cache, range);
  __syncthreads();
  const WarpKeys<kSteps, kRows, Takes::kOnePart> keys(args.cache, rows, head,
                                                      staged + warp * kWarpBytes<kSteps>);
  // Most entries were written long before the operation in front of this one. Those that it writes now are
  // only asked for, not read.
  Run ahead = keys.first(warp);
  Place places[kStages];
#pragma unroll
  for (int s = 0; s < kStages; ++s) {
    places[s] = keys.find(ahead);
    ahead = keys.next(ahead);
  }
#pragma unroll
  for (int s = 0; s < kStages; ++s) keys.prefetch_found(places[s]);
  await_previous();
  if (rows.most < 0 && args.packed.data == nullptr) return;
  const Queries<kSteps, kHalves> loaded(args.cache, range, head);
#pragma unroll
  for (int s = 0; s < kStages; ++s) {
    keys.template copy<true, true>(places[s], s * Shape::kStageBytes);
    end_copies();
  }
  QueryParts queries[kHalves][kSteps];
  loaded.split_to(queries);

  const float scale = args.cache.scale * kLog2E;
  State<kSteps> states[kHalves];
  int stage = 0;  // in bytes
  for (Run run = keys.first(warp); keys.has(run); run = keys.next(run)) {
    const bool more = keys.has(ahead);
    const Place place = keys.find(ahead);
    await_copies<kStages - 1>();
    __syncwarp();
    Sums products[kHalves][Shape::kKeyTiles];
    multiply_keys(keys, stage, queries, products);
    const auto weights = weigh(keys, run, products, scale, states);
    add_values(keys, run, stage, weights, states);
    __syncwarp();
    if (more) {
      keys.template copy<true, true>(place, stage);
      ahead = keys.next(ahead);
    }
    end_copies();
    stage = stage + Shape::kStageBytes == kWarpBytes<kSteps> ? 0 : stage + Shape::kStageBytes;
  }

  // What a warp has read is no longer needed: its place takes the warp's sums. Where there were fewer groups
  // than stages, zeros are still on their way there.
  await_copies<0>();
  __syncwarp();
  const auto totals_of = [&](int w) { return reinterpret_cast<float*>(staged + w * kWarpBytes<kSteps>); };
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    const int row = h * kHalfRows + lane / 4;
    const float sum = row_sum(states[h].sum);
    if (lane % 4 == 0) {
      maxima[warp][row] = states[h].maximum;
      sums[warp][row] = sum;
    }
#pragma unroll
    for (int tile = 0; tile < Shape::kTiles; ++tile) {
      const auto& total = states[h].totals[tile].values;
      *reinterpret_cast<float2*>(totals_of(warp) + row * kLine + tile * kTileOut + lane % 4 * 2) =
          make_float2(total[0] + total[2], total[1] + total[3]);
    }
  }
  __syncthreads();
  constexpr int kVectors = Shape::kWidth / 4;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kVectors; i += kThreads) {
    const int r = i / kVectors, d = i % kVectors * 4;
    const int count = rows.counts[r];
    const int64_t row = range.first + r;
    const bool is_packed = args.packed.data != nullptr && row < range.end;
    if ((count < 0 && !is_packed) || d >= args.cache.layout.width) continue;
    JoinedSoftmax joined;
    float totals[4] = {};
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      if (!joined.add(maxima[part][r], sums[part][r])) continue;
      const float4 next = *reinterpret_cast<const float4*>(totals_of(part) + r * kLine + d);
      totals[0] = joined.join(totals[0], next.x);
      totals[1] = joined.join(totals[1], next.y);
      totals[2] = joined.join(totals[2], next.z);
      totals[3] = joined.join(totals[3], next.w);
    }
    const float inverse = 1.0f / joined.sum;
#pragma unroll
    for (float& total : totals) total = count > 0 ? total * inverse : 0.0f;
    if (is_packed) {
      *reinterpret_cast<uint2*>(args.packed.at(row, int64_t{head} * Shape::kWidth + d)) =
          make_uint2(two_bf16(totals[0], totals[1]), two_bf16(totals[2], totals[3]));
      continue;
    }
    float* out = args.out(row, head) + d;
#pragma unroll
    for (int e = 0; e < 4; ++e) out[e] = totals[e];
  }
  args.pad<kSteps>(range.end, head, static_cast<int>(threadIdx.x), kThreads);
}

// ---- A warp for each head

constexpr int kBlockWarps = 4;
constexpr int kProcessorWarps = 16;  // all that its registers hold, so that all heads are read at once

template <int kSteps>
__global__ void __launch_bounds__(kBlockWarps* kWarp, kProcessorWarps / kBlockWarps)
    attend_by_warps(BF16Attention args, unsigned warps) {
  using Shape = Heads<kSteps>;
  alignas(128) extern __shared__ std::byte staged[];
  __shared__ BlockKeys<Shape::kKeys, kHalfRows> block_rows[kBlockWarps];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const unsigned index = blockIdx.x * kBlockWarps + warp, heads = static_cast<unsigned>(args.cache.heads);
  if (index >= warps) return;
  const auto head = static_cast<int>(index % heads);
  const auto range = BlockRows<kHalfRows>::range(args.cache, index / heads);
  BlockKeys<Shape::kKeys, kHalfRows>& rows = block_rows[warp];
  rows.find(args.cache, range);
  __syncwarp();
  const WarpKeys<kSteps, kHalfRows, Takes::kAllParts> keys(args.cache, rows, head,
                                                           staged + warp * Shape::kStageBytes);
  // As in the other kernel, entries are only asked for here.
  Run run = keys.first(0);
  Place place = keys.find(run);
  keys.prefetch_found(place);
  await_previous();
  if (rows.most < 0 && args.packed.data == nullptr) return;
  keys.template copy<true, false>(place, 0);
  end_copies();
  keys.template copy<false, true>(place, 0);
  end_copies();
  QueryParts queries[1][kSteps];
  Queries<kSteps, 1>(args.cache, range, head).split_to(queries);

  const float scale = args.cache.scale * kLog2E;
  State<kSteps> states[1];
  JoinedSoftmax joined;
  float2 totals[Shape::kTiles] = {};
  while (keys.has(run)) {
    const Run next = keys.next(run);
    place = keys.find(next);
    Sums products[1][Shape::kKeyTiles];
    await_copies<1>();
    __syncwarp();
    multiply_keys(keys, 0, queries, products);
    __syncwarp();
    if (keys.has(next)) keys.template copy<true, false>(place, 0);
    end_copies();
    const auto weights = weigh(keys, run, products, scale, states);
    await_copies<1>();
    __syncwarp();
    add_values(keys, run, 0, weights, states);
    __syncwarp();
    if (keys.has(next)) keys.template copy<false, true>(place, 0);
    end_copies();
    if (!keys.has(next) || next.group % kParts != run.group % kParts) {
      const float sum = row_sum(states[0].sum);
      if (joined.add(states[0].maximum, sum)) {
#pragma unroll
        for (int tile = 0; tile < Shape::kTiles; ++tile) {
          const auto& total = states[0].totals[tile].values;
          totals[tile] = {joined.join(totals[tile].x, total[0] + total[2]),
                          joined.join(totals[tile].y, total[1] + total[3])};
        }
      }
      states[0] = {};
    }
    run = next;
  }

  const int count = rows.counts[lane / 4];
  const int64_t row = range.first + lane / 4;
  const float inverse = 1.0f / joined.sum;
#pragma unroll
  for (float2& total : totals) {
    total.x = count > 0 ? total.x * inverse : 0.0f;
    total.y = count > 0 ? total.y * inverse : 0.0f;
  }
  if (args.packed.data != nullptr) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t pairs[4];
#pragma unroll
      for (int p = 0; p < 4; ++p) pairs[p] = two_bf16(totals[step * 4 + p].x, totals[step * 4 + p].y);
      const uint4 vector = transposed_of_four(pairs[0], pairs[1], pairs[2], pairs[3]);
      if (row < range.end) *args.vector(row, head * kSteps + step, lane % 4) = vector;
    }
    return args.pad<kSteps>(range.end, head, lane, kWarp);
  }
  if (count < 0) return;
  float* out = args.out(row, head) + lane % 4 * 2;
#pragma unroll
  for (int tile = 0; tile < Shape::kTiles; ++tile) {
    if (tile * kTileOut < args.cache.layout.width)
      *reinterpret_cast<float2*>(out + tile * kTileOut) = totals[tile];
  }
}

// Whether so many heads keep memory busy with a warp for each.
bool keep_busy_by_warps(int64_t heads, const Abilities& device) {
  return heads >= 8 * device.processors;
}

}  // namespace

bool takes_bf16_vectors(int64_t width) {
  return width % (2 * kElements) == 0 && width <= 4 * kStep;
}

void launch_bf16_attention(const AttentionArgs& args, const PackedRows& packed, const Stream& stream) {
  const auto by_teams = [&](auto steps, auto halves) {
    const AttentionGrid grid(args, halves * kHalfRows);
    launch("attention", attend_by_teams<steps, halves>,
           Geometry{
               .grid = grid.blocks, .threads = kThreads, .shared_bytes = kParts * int64_t{kWarpBytes<steps>}},
           stream, BF16Attention{.cache = grid.device, .packed = packed});
  };
  const AttentionGrid grid(args, kHalfRows);
  const unsigned count = grid.blocks.x * grid.blocks.y;
  const auto by_warps = [&](auto steps) {
    launch("attention", attend_by_warps<steps>,
           Geometry{.grid = blocks_of(count, kBlockWarps),
                    .threads = kBlockWarps * kWarp,
                    .shared_bytes = kBlockWarps * int64_t{Heads<steps>::kStageBytes}},
           stream, BF16Attention{.cache = grid.device, .packed = packed}, count);
  };
  const auto run = [&](auto steps) {
    if constexpr (Heads<steps>::kHalves > 1) {
      if (rows_together(args) > kHalfRows) return by_teams(steps, std::integral_constant<int, 2>());
      if (keep_busy_by_warps(count, stream)) return by_warps(steps);
    }
    by_teams(steps, std::integral_constant<int, 1>());
  };
  switch (ceil_div(args.q.shape[2], kStep)) {
    case 1:
      return run(std::integral_constant<int, 1>());
    case 2:
      return run(std::integral_constant<int, 2>());
    case 3:
      return run(std::integral_constant<int, 3>());
    default:
      return run(std::integral_constant<int, 4>());
  }
}

}  // namespace volley::cuda
