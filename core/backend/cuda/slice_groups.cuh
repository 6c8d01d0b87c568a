#pragma once

// Products of so few tiles that they would leave processors idle: a block multiplies one slice of the inputs
// of a tile, and the blocks of a cluster join their sums, each a share of the tile's.

#include "core/backend/cuda/row_groups.cuh"

namespace volley::cuda {

// Two blocks fit a processor.
struct SliceShape : GroupShape<1, 2, 4> {
  static constexpr int kStages = 6;
  static constexpr int kRingBytes = kStages * kStageBytes;
  static constexpr int kExchangeBytes = kTeams * kTeam * kValues * 4;
};

struct SliceWalk {
  unsigned row_tiles;

  template <typename F>
  __device__ void each(const F& f) const {
    const unsigned i = blockIdx.x / kSlices;
    f(i % row_tiles, i / row_tiles);
  }
};

template <typename Tiles>
__device__ void multiply_slice(const Tiles& tiles, const ManyRows& rows, const SliceWalk& walk,
                               const Ring<SliceShape>& ring) {
  constexpr int kWeights = Tiles::kWeights, kEach = SliceShape::kTeamPanels / kWeights;
  constexpr int kOwn = kEach * 2 / kSlices;  // of a thread's pairs of outputs: panels by halves
  constexpr int kThreads = SliceShape::kTeams * kTeam;
  const int thread = threadIdx.x, lane = thread % kWarp, warp = __shfl_sync(kAllLanes, thread / kWarp, 0);
  const int rank = static_cast<int>(blockIdx.x) % kSlices;
  auto* const exchange = reinterpret_cast<float2*>(ring.stages + SliceShape::kRingBytes);
  Team<SliceShape> team(ring, warp);
  walk.each([&](unsigned row_tile, unsigned index) {
    const typename Tiles::Tile tile(tiles, index);
    const int64_t row = int64_t{row_tile} * SliceShape::kRows + warp % 4 * kTileRows + lane / 4;
    const int out =
        (static_cast<int>(tile.index()) * (SliceShape::kPanels / kWeights) + team.out_team * kEach) *
            kTileOut +
        lane % 4 * 2;
    const auto own = [&](int i) {
      const int n = (rank * kOwn + i) / 2, half = (rank * kOwn + i) % 2;
      return tile.row(row + half * 8, rows.count, out + n * kTileOut);
    };
    typename Tiles::Before before[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) before[i] = own(i).template read<false>(0);
    const bool scales = rows.scales != nullptr;
    const float row_scales[] = {scales ? rows.scale(row) : 1.0f, scales ? rows.scale(row + 8) : 1.0f};
    typename Team<SliceShape>::Sums sums;
    team.add_slice(rank, rows.packed.steps, sums);
    team.finish();
    pin(sums);
#pragma unroll
    for (int i = 0; i < SliceShape::kValues / 2; ++i)
      exchange[i * kThreads + thread] = {sums[2 * i], sums[2 * i + 1]};
    meet_cluster();
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      float2 joined[kWeights];
#pragma unroll
      for (int w = 0; w < kWeights; ++w) {
        const float2* part = exchange + (w * kEach * 2 + rank * kOwn + i) * kThreads + thread;
        float2 parts[kSlices];
#pragma unroll
        for (int s = 0; s < kSlices; ++s) parts[s] = read_of_block(part, s);
        joined[w] = {join_slices(parts[0].x, parts[1].x, parts[2].x, parts[3].x),
                     join_slices(parts[0].y, parts[1].y, parts[2].y, parts[3].y)};
        if (scales) {
          const float scale = row_scales[(rank * kOwn + i) % 2];
          joined[w] = {joined[w].x * scale, joined[w].y * scale};
        }
      }
      if (tile.pairs()) {
        own(i).template store<true>(0, joined, before[i]);
      } else {
        own(i).template store<false>(0, joined, before[i]);
      }
    }
  });
}

template <typename Tiles>
__global__ void __launch_bounds__(SliceShape::kThreads, 2)
    multiply_slice_groups(const __grid_constant__ Tiles tiles, const __grid_constant__ WeightMaps weights,
                          const __grid_constant__ CUtensorMap row_map, const __grid_constant__ ManyRows rows,
                          SliceWalk walk) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  alignas(1024) extern __shared__ std::byte stages[];
  __shared__ Barrier full[SliceShape::kStages], empty[SliceShape::kStages];
  const Ring<SliceShape> ring{full, empty, stages};
  ring.init();
  if (threadIdx.x >= SliceShape::kTeams * kTeam) {
    const int thread = threadIdx.x - SliceShape::kTeams * kTeam,
              rank = static_cast<int>(blockIdx.x) % kSlices;
    const SliceRange slice{rank, rank + 1};
    if (thread == 0) bring_weights(tiles, weights, walk, slice, rows.packed.steps, ring);
    if (thread == kWarp) {
      await_previous();
      bring_rows(row_map, walk, slice, rows.packed.steps, ring);
    }
    meet_cluster();
  } else {
    await_previous();
    multiply_slice(tiles, rows, walk, ring);
  }
  meet_cluster();  // others have read this block's sums
#endif
}

template <typename Tiles>
void launch_slice_groups(const Tiles& tiles, const ManyRows& rows, const Stream& stream) {
  const TileWalk walk = tile_walk<SliceShape>(tiles, rows);
  launch("linear bf16", multiply_slice_groups<Tiles>,
         Geometry{.grid = dim3(walk.count * kSlices),
                  .threads = SliceShape::kThreads,
                  .shared_bytes = SliceShape::kRingBytes + SliceShape::kExchangeBytes,
                  .cluster = kSlices},
         stream, tiles, maps_of_weights<SliceShape>(tiles, rows.packed.steps), map_of_rows<SliceShape>(rows),
         rows, SliceWalk{walk.row_tiles});
}

}  // namespace volley::cuda
