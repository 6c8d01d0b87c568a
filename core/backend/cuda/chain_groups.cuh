#pragma once

// Products in which an output is one chain over its inputs: a team's sums take a third of the registers that
// slices take. A block makes tiles one after the other. Its teams share each, or take turns: while one stores
// a tile of its own, the other multiplies the next.

#include <algorithm>
#include <type_traits>

#include "core/backend/cuda/group_results.cuh"
#include "core/backend/cuda/row_groups.cuh"

namespace volley::cuda {

// Teams that share tiles.
template <int kRowTeams, int kOutTeams, int kTeamPanels>
struct ChainShape : GroupShape<kRowTeams, kOutTeams, kTeamPanels> {
  static constexpr bool kTurns = false;
  static constexpr int kSixtyFours = 1;  // of rows, of a team
};
// Two that take turns, each with tiles of 128 rows.
struct TurnShape : GroupShape<2, 1, 16> {
  static constexpr bool kTurns = true;
  static constexpr int kSixtyFours = kRowTeams;
};

// Tiles of rows by outputs. Some rows' tiles of all outputs come one after the other, so that rows are read
// from memory once.
struct ChainWalk {
  static constexpr unsigned kTogether = 16;  // tiles of rows

  unsigned row_tiles;
  unsigned out_tiles;

  __host__ __device__ unsigned count() const { return row_tiles * out_tiles; }
  // Calls f(row tile, output tile).
  template <typename F>
  __device__ void each(const F& f) const {
#pragma unroll 1
    for (unsigned i = blockIdx.x; i < count(); i += gridDim.x) {
      const unsigned first = i / (kTogether * out_tiles) * kTogether, left = i - first * out_tiles;
      const unsigned rows = min(kTogether, row_tiles - first);
      f(first + left % rows, left / rows);
    }
  }
};

// A team's way through the ring.
template <typename Shape>
class ChainTeam {
 public:
  static constexpr int kParts = Shape::kSixtyFours;  // of 64 rows
  using Sums = float[kParts][Shape::kValues];

  __device__ ChainTeam(const Ring<Shape>& ring, int warp)
      : row_team(Shape::kTurns ? 0 : warp / 4 % Shape::kRowTeams),
        out_team(Shape::kTurns ? 0 : warp / 4 / Shape::kRowTeams),
        ring_(ring),
        rows_(ring.stages + row_team * kRowBytes, kStride),
        weights_(ring.stages + (Shape::kRowEights + out_team * Shape::kTeamPanels) * kStride, kStride) {}

  // Calls begun() where all of the tile's stages are there.
  template <typename Begun>
  __device__ void multiply(int steps, Sums& sums, const Begun& begun) {
    add_stage(std::true_type(), sums);
#pragma unroll 1
    for (int step = Shape::kStageSteps; step < steps; step += Shape::kStageSteps)
      add_stage(std::false_type(), sums);
    begun();
    await_groups<0>();
    give_back();
    used_ = -1;
#pragma unroll
    for (int p = 0; p < kParts; ++p) pin(sums[p]);
  }
  // Leaves a tile's stages to the other team.
  __device__ void skip(int steps) {
    const int stages = at_.stage + (steps + Shape::kStageSteps - 1) / Shape::kStageSteps;
    at_.parity ^= stages / Shape::kStages % 2;
    at_.stage = stages % Shape::kStages;
  }

  const int row_team;
  const int out_team;

 private:
  static constexpr int kStride = Shape::kStageSteps * kBlockBytes, kRowBytes = kTeamRows / 8 * kStride;

  template <typename Begins>
  __device__ void add_stage(Begins begins, Sums& sums) {
    ring_.full[at_.stage].wait(at_.parity);
    begin_groups();
#pragma unroll
    for (int i = 0; i < Shape::kStageSteps * 2; ++i) {
      const int moved = at_.stage * Shape::kStageBytes + i / 2 * kBlockBytes + i % 2 * kMultiplyBytes;
#pragma unroll
      for (int p = 0; p < kParts; ++p) {
        const Matrix rows = rows_.moved(moved + p * kRowBytes), weights = weights_.moved(moved);
        if (begins && i == 0) {
          GroupMultiply<Shape::kValues>::begin(sums[p], rows, weights);
        } else {
          GroupMultiply<Shape::kValues>::add(sums[p], rows, weights);
        }
      }
    }
    end_group();
    await_groups<1>();
    give_back();
    used_ = at_.stage;
    at_.next();
  }
  __device__ void give_back() const {
    if (used_ >= 0 && threadIdx.x % kWarp == 0) ring_.empty[used_].arrive();
  }

  const Ring<Shape>& ring_;
  const Matrix rows_;
  const Matrix weights_;
  RingPlace<Shape::kStages> at_;
  int used_ = -1;  // stage that is read, and not yet given back
};

// By one thread: calls bring(row tile, output tile, step, stage) for each stage, which is free then.
template <typename Shape, typename Bring>
__device__ void bring_stages(const ChainWalk& walk, int steps, const Ring<Shape>& ring, const Bring& bring) {
  RingPlace<Shape::kStages> at;
  walk.each([&](unsigned row_tile, unsigned out_tile) {
#pragma unroll 1
    for (int step = 0; step < steps; step += Shape::kStageSteps) {
      ring.empty[at.stage].wait(at.parity ^ 1);
      bring(row_tile, out_tile, step, at.stage);
      at.next();
    }
  });
}

template <typename Shape, typename Tiles>
__device__ void bring_chain_weights(const Tiles& tiles, const WeightMaps& weights, const ChainWalk& walk,
                                    int steps, const Ring<Shape>& ring) {
  bring_stages(walk, steps, ring, [&](unsigned, unsigned out_tile, int step, int stage) {
    const typename Tiles::Tile tile(tiles, out_tile);
    ring.full[stage].arrive_and_announce(Shape::kPanels * Shape::kStageSteps * kBlockBytes);
    copy_box(ring.stages + stage * Shape::kStageBytes + Shape::kRowEights * Shape::kStageSteps * kBlockBytes,
             weights.maps[tile.target(0)], {step, static_cast<int>(tile.index()) * Shape::kPanels},
             ring.full[stage]);
  });
}

template <typename Shape>
__device__ void bring_chain_rows(const CUtensorMap& rows, const ChainWalk& walk, int steps,
                                 const Ring<Shape>& ring) {
  bring_stages(walk, steps, ring, [&](unsigned row_tile, unsigned, int step, int stage) {
    ring.full[stage].arrive_and_announce(Shape::kRowEights * Shape::kStageSteps * kBlockBytes);
    copy_box(ring.stages + stage * Shape::kStageBytes, rows,
             {step, static_cast<int>(row_tile) * Shape::kRowEights}, ring.full[stage]);
  });
}

// Teams take turns: a team's stages begin to come when the other's have come, and before that the parity of
// their barriers would tell nothing.
struct Turns {
  Barrier (&begun)[2];  // by the other team

  __device__ void init() const {
    if (threadIdx.x != 0) return;
    begun[0].init(4);
    begun[1].init(4);
  }
  // Before a team's tile number `count`; team 0 begins.
  __device__ void await(int team, int count) const {
    if (team == 1 || count > 0) begun[team].wait((count + team + 1) % 2);
  }
  __device__ void pass_on(int team) const {
    if (threadIdx.x % kWarp == 0) begun[1 - team].arrive();
  }
};

template <typename Shape, typename Tiles>
__device__ void multiply_chain_tiles(const Tiles& tiles, const ManyRows& rows, const ChainWalk& walk,
                                     const Ring<Shape>& ring, const Turns& turns) {
  const int lane = threadIdx.x % kWarp, warp = __shfl_sync(kAllLanes, threadIdx.x / kWarp, 0);
  ChainTeam<Shape> team(ring, warp);
  int seen = 0;  // tiles
  walk.each([&](unsigned row_tile, unsigned out_tile) {
    if (const int count = seen++; Shape::kTurns) {
      if (count % 2 != warp / 4) return team.skip(rows.packed.steps);
      turns.await(warp / 4, count / 2);
    }
    const typename Tiles::Tile tile(tiles, out_tile);
    typename ChainTeam<Shape>::Sums sums;
    team.multiply(rows.packed.steps, sums, [&] {
      if constexpr (Shape::kTurns) turns.pass_on(warp / 4);
    });
    const int64_t row =
        int64_t{row_tile} * Shape::kRows + team.row_team * kTeamRows + warp % 4 * kTileRows + lane / 4;
    const int out =
        (static_cast<int>(tile.index()) * Shape::kPanels + team.out_team * Shape::kTeamPanels) * kTileOut;
    // Part by part: results that are added to are read before, and take registers.
    constexpr int kPart = Shape::kValues % 32 == 0 ? 32 : Shape::kValues;
#pragma unroll
    for (int p = 0; p < ChainTeam<Shape>::kParts * (Shape::kValues / kPart); ++p) {
      constexpr int kSplit = Shape::kValues / kPart;
      float part[kPart];
#pragma unroll
      for (int i = 0; i < kPart; ++i) part[i] = sums[p / kSplit][p % kSplit * kPart + i];
      store_sums(tile, rows.count, row + p / kSplit * kTeamRows, out + p % kSplit * (kPart / 4) * kTileOut,
                 part, NothingEarly());
    }
  });
}

template <typename Shape, typename Tiles>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    multiply_chains(const __grid_constant__ Tiles tiles, const __grid_constant__ WeightMaps weights,
                    const __grid_constant__ CUtensorMap row_map, const __grid_constant__ ManyRows rows,
                    ChainWalk walk) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  static_assert(Tiles::kWeights == 1);
  alignas(1024) extern __shared__ std::byte stages[];
  __shared__ Barrier full[Shape::kStages], empty[Shape::kStages], begun[2];
  const Ring<Shape> ring{full, empty, stages};
  const Turns turns{begun};
  turns.init();
  ring.init(Shape::kTurns ? 1 : Shape::kTeams);
  const int steps = rows.packed.steps;
  if (threadIdx.x >= Shape::kTeams * kTeam) {
    give_registers<Shape::kCopying>();
    const int thread = threadIdx.x - Shape::kTeams * kTeam;
    if (thread == 0) bring_chain_weights(tiles, weights, walk, steps, ring);
    if (thread == kWarp) {
      prefetch_map(row_map);
      await_previous();
      bring_chain_rows(row_map, walk, steps, ring);
    }
  } else {
    take_registers<Shape::kMultiplying>();
    await_previous();
    multiply_chain_tiles(tiles, rows, walk, ring, turns);
  }
#endif
}

template <typename Shape, typename Tiles>
void launch_chains(const Tiles& tiles, const ManyRows& rows, const Stream& stream) {
  const ChainWalk walk{blocks_of(rows.count, Shape::kRows), tiles.tiles()};
  WeightMaps weights{};
  for (int t = 0; t < tiles.target_count(); ++t) {
    weights.maps[t] = tensor_map(BlockMap{.blocks = tiles.target(t).weight,
                                          .eights = panels_of(tiles.target(t).out_features),
                                          .steps = rows.packed.steps,
                                          .box_eights = Shape::kPanels,
                                          .box_steps = Shape::kStageSteps});
  }
  launch("linear bf16", multiply_chains<Shape, Tiles>,
         Geometry{.grid = dim3(std::min(walk.count(), static_cast<unsigned>(stream.processors))),
                  .threads = Shape::kThreads,
                  .shared_bytes = int64_t{Shape::kStages} * Shape::kStageBytes},
         stream, tiles, weights, map_of_rows<Shape>(rows), rows, walk);
}

}  // namespace volley::cuda
