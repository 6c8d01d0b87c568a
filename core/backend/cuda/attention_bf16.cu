// Attention of few rows over a paged cache in bf16, on tensor cores. Up to 16 rows of a sequence are taken
// together, and a head of them by a team of warps, one for each part of the keys, or by one warp, part by
// part: that gives the same bits. Which part and which place in a multiply-accumulate the i-th visible key of
// a row gets depends on i alone, and no row's sums depend on another row, so that neither do the bits.
#include "core/backend/cuda/attention_teams.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/program.h"

namespace volley::cuda {
namespace {

// ---- A team of warps for each head

constexpr int kBlocks = 3;  // of a processor: shared memory holds what is on its way for as many

template <int kSteps, int kHalves>
__global__ void __launch_bounds__(kTeamThreads, kBlocks) attend_by_teams(BF16Attention args) {
  alignas(128) extern __shared__ std::byte staged[];
  __shared__ TeamMemory<kSteps, kHalves> team;
  attend(
      args, static_cast<int>(blockIdx.x), blockIdx.y, static_cast<int>(threadIdx.x), team, staged,
      [] { __syncthreads(); }, [] { return false; }, [] { await_previous(); });
  args.pad<kSteps>(BlockRows<kHalves * kHalfRows>::range(args.cache, blockIdx.y).end,
                   static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x), kTeamThreads);
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

namespace {

// Blocks of `count` rows and a head, by heads first.
dim3 grid_of(const CacheAttention& args, int64_t count) {
  return {static_cast<unsigned>(args.heads),
          blocks_of(args.rows, args.together) * blocks_of(args.together, count)};
}

template <int kSteps, int kHalves>
void launch_teams(const BF16Attention& args, const Stream& stream) {
  launch("attention", attend_by_teams<kSteps, kHalves>,
         Geometry{.grid = grid_of(args.cache, kHalves * kHalfRows),
                  .threads = kTeamThreads,
                  .shared_bytes = kParts * int64_t{kWarpBytes<kSteps>}},
         stream, args);
}

template <int kSteps>
void launch_steps(const BF16Attention& args, const Stream& stream) {
  if constexpr (Heads<kSteps>::kHalves > 1) {
    if (args.cache.together > kHalfRows) return launch_teams<kSteps, 2>(args, stream);
    const dim3 grid = grid_of(args.cache, kHalfRows);
    const unsigned count = grid.x * grid.y;
    if (keep_busy_by_warps(count, stream)) {
      return launch("attention", attend_by_warps<kSteps>,
                    Geometry{.grid = blocks_of(count, kBlockWarps),
                             .threads = kBlockWarps * kWarp,
                             .shared_bytes = kBlockWarps * int64_t{Heads<kSteps>::kStageBytes}},
                    stream, args, count);
    }
  }
  launch_teams<kSteps, 1>(args, stream);
}

}  // namespace

void launch_bf16_attention(const AttentionArgs& args, const PackedRows& packed, const Stream& stream) {
  BF16Attention attention{.cache = device_args(args), .packed = packed};
  attention.cache.together = rows_together(args);
  const auto run = [attention, steps = ceil_div(args.q.shape[2], kStep)](const Stream& on) {
    switch (steps) {
      case 1:
        return launch_steps<1>(attention, on);
      case 2:
        return launch_steps<2>(attention, on);
      case 3:
        return launch_steps<3>(attention, on);
      default:
        return launch_steps<4>(attention, on);
    }
  };
  if (stream.program != nullptr && stream.program->takes(attention, stream, run)) return;
  run(stream);
}

}  // namespace volley::cuda
