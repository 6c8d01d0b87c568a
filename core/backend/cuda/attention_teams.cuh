#pragma once

// Attention of a head of few rows over a bf16 cache: its arguments, and the way of a team of warps, one for
// each part of the keys.

#include "core/backend/cuda/attention_softmax.cuh"
#include "core/backend/cuda/posted.cuh"
#include "core/backend/cuda/products_bf16.cuh"

namespace volley::cuda {

inline constexpr float kLog2E = 1.44269504088896341f;

struct BF16Attention {
  static constexpr int kVectors = kStep / kLaneInputs;  // of a step

  CacheAttention cache;
  PackedRows packed;  // takes the results if it has data; then heads are whole steps
  // In a program: no earlier phase writes entries to the plane but by the same rows.
  bool knows_writers = false;

  // By a warp: whether none of the rows replaces an entry that the cache keeps.
  __device__ bool replaces_none() const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int32_t code = lane < cache.rows ? cache.tables.row_entry[cache.tables.first_row + lane] : kNoEntry;
    return __all_sync(kAllLanes, code >= 0 || code == kNoEntry);
  }
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

constexpr int kTeamThreads = kParts * kWarp;
constexpr int kAheadGroups = 2;  // groups of a warp on their way
template <int kSteps>
constexpr int kWarpBytes = kAheadGroups* Heads<kSteps>::kStageBytes;

// What a team shares.
template <int kSteps, int kHalves>
struct TeamMemory {
  static constexpr int kRows = kHalves * kHalfRows;

  BlockKeys<Heads<kSteps>::kKeys, kRows> rows;
  float maxima[kParts][kRows];
  float sums[kParts][kRows];
};

// By kTeamThreads threads, of which this is the `thread`-th: `head` of the index-th rows that are taken
// together; rows that only fill up sixteen are left to the caller. `staged` has room for kParts * kWarpBytes.
// `meet` meets the team. Before `await_inputs`, only tables are read, and keys that are kept from earlier
// steps if `may_copy()`, which all threads call.
template <int kSteps, int kHalves, typename Meet, typename MayCopy, typename Await>
__device__ void attend(const BF16Attention& args, int head, unsigned index, int thread,
                       TeamMemory<kSteps, kHalves>& team, std::byte* staged, const Meet& meet,
                       const MayCopy& may_copy, const Await& await_inputs) {
  using Shape = Heads<kSteps>;
  constexpr int kRows = kHalves * kHalfRows;
  constexpr int kLine = Shape::kWidth + 8;  // of a row's sums: rows of a warp lie in different banks
  static_assert(kRows * kLine * 4 <= kWarpBytes<kSteps>);
  const auto range = BlockRows<kRows>::range(args.cache, index);
  auto& rows = team.rows;
  const int lane = thread % kWarp, warp = __shfl_sync(kAllLanes, thread / kWarp, 0);
  if (warp == 0) rows.find(args.cache, range);
  meet();
  const WarpKeys<kSteps, kRows, Takes::kOnePart> keys(args.cache, rows, head,
                                                      staged + warp * kWarpBytes<kSteps>);
  // Most entries were written long before the operation in front of this one. Those that it writes now are
  // only asked for, not read.
  Run ahead = keys.first(warp);
  Place places[kAheadGroups];
  bool copied[kAheadGroups];
#pragma unroll
  for (int s = 0; s < kAheadGroups; ++s) {
    places[s] = keys.find(ahead);
    copied[s] = keys.is_kept(ahead);
    ahead = keys.next(ahead);
  }
#pragma unroll
  for (int s = 0; s < kAheadGroups; ++s) keys.prefetch_found(places[s]);
  const bool early = may_copy();
#pragma unroll
  for (int s = 0; s < kAheadGroups; ++s) {
    copied[s] = copied[s] && early;
    if (copied[s]) keys.template copy<true, true>(places[s], s * Shape::kStageBytes);
  }
  await_inputs();
  if (rows.most < 0 && args.packed.data == nullptr) return;
  const Queries<kSteps, kHalves> loaded(args.cache, range, head);
#pragma unroll
  for (int s = 0; s < kAheadGroups; ++s) {
    if (!copied[s]) keys.template copy<true, true>(places[s], s * Shape::kStageBytes);
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
    await_copies<kAheadGroups - 1>();
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
      team.maxima[warp][row] = states[h].maximum;
      team.sums[warp][row] = sum;
    }
#pragma unroll
    for (int tile = 0; tile < Shape::kTiles; ++tile) {
      const auto& total = states[h].totals[tile].values;
      *reinterpret_cast<float2*>(totals_of(warp) + row * kLine + tile * kTileOut + lane % 4 * 2) =
          make_float2(total[0] + total[2], total[1] + total[3]);
    }
  }
  meet();
  constexpr int kVectors = Shape::kWidth / 4;
  for (int i = thread; i < kRows * kVectors; i += kTeamThreads) {
    const int r = i / kVectors, d = i % kVectors * 4;
    const int count = rows.counts[r];
    const int64_t row = range.first + r;
    const bool is_packed = args.packed.data != nullptr && row < range.end;
    if ((count < 0 && !is_packed) || d >= args.cache.layout.width) continue;
    JoinedSoftmax joined;
    float totals[4] = {};
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      if (!joined.add(team.maxima[part][r], team.sums[part][r])) continue;
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
      post(reinterpret_cast<uint2*>(args.packed.at(row, int64_t{head} * Shape::kWidth + d)),
           make_uint2(two_bf16(totals[0], totals[1]), two_bf16(totals[2], totals[3])));
      continue;
    }
    float* out = args.out(row, head) + d;
#pragma unroll
    for (int e = 0; e < 4; ++e) out[e] = totals[e];
  }
}

}  // namespace volley::cuda
