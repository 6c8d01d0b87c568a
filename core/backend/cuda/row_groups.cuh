#pragma once

// What kernels with wgmma share: shapes of blocks, the ring of stages in shared memory through which a
// block's weights and rows come, and a team's way through it. A team is four warps and has 64 rows of a tile.
// A stage holds some steps of the tile's rows, then of its weights, panel by panel.

#include <type_traits>

#include "core/backend/cuda/products_bf16.cuh"
#include "core/backend/cuda/tensor_map.h"
#include "core/backend/cuda/wgmma.cuh"

namespace volley::cuda {

inline constexpr int kTeam = 4 * kWarp;  // threads
inline constexpr int kTeamRows = 64;
inline constexpr int kMultiplyBytes = 32;  // of a row: 16 inputs

// Teams that share a block: kRowTeams above each other, kOutTeams side by side, each of kTeamPanels of 8
// outputs.
template <int kRowTeams_, int kOutTeams_, int kTeamPanels_, int kStageSteps_ = 2>
struct GroupShape {
  static constexpr int kRowTeams = kRowTeams_, kOutTeams = kOutTeams_, kTeamPanels = kTeamPanels_,
                       kStageSteps = kStageSteps_;
  static constexpr int kTeams = kRowTeams * kOutTeams, kThreads = (kTeams + 1) * kTeam;
  static constexpr int kRows = kRowTeams * kTeamRows, kPanels = kOutTeams * kTeamPanels;
  static constexpr int kRowEights = kRows / 8;
  static constexpr int kValues = kTeamPanels * 4;  // sums of a thread
  static constexpr int kStageBytes = (kRowEights + kPanels) * kStageSteps * kBlockBytes;
  static constexpr int kStages = (208 << 10) / kStageBytes;
  // Registers of the threads that copy, and of those that multiply.
  static constexpr int kCopying = kTeams == 3 ? 32 : 40;
  static constexpr int kMultiplying = kTeams == 3 ? 160 : 232;
};

// A place in the ring of stages, and the parity of its phase.
template <int kStages>
struct RingPlace {
  int stage = 0;
  unsigned parity = 0;

  __device__ void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Calls f(first step) for each stage of a slice.
template <typename Shape, typename F>
__device__ void for_stages(int slice, int steps, const F& f) {
  const int end = slice_begin(slice + 1, steps);
#pragma unroll 1
  for (int step = slice_begin(slice, steps); step < end; step += Shape::kStageSteps) f(step);
}
// Slices that a block multiplies.
struct SliceRange {
  int begin = 0;
  int end = kSlices;
};
template <typename Shape, typename F>
__device__ void for_stages(SliceRange slices, int steps, const F& f) {
#pragma unroll 1
  for (int slice = slices.begin; slice < slices.end; ++slice) for_stages<Shape>(slice, steps, f);
}

// Tiles of all rows and outputs, and which are a block's.
struct TileWalk {
  unsigned row_tiles;
  unsigned count;

  // Calls f(row tile, output tile). Those of the same weights are neighbours.
  template <typename F>
  __device__ void each(const F& f) const {
#pragma unroll 1
    for (unsigned i = blockIdx.x; i < count; i += gridDim.x) f(i % row_tiles, i / row_tiles);
  }
};

template <typename Shape>
struct Ring {
  Barrier (&full)[Shape::kStages];
  Barrier (&empty)[Shape::kStages];
  std::byte* stages;

  // By all threads of the block. A stage is filled by two threads, and read by so many teams.
  __device__ void init(int teams = Shape::kTeams) const {
    if (threadIdx.x == 0) {
      for (int s = 0; s < Shape::kStages; ++s) {
        full[s].init(2);
        empty[s].init(teams * 4);
      }
      publish_barriers();
    }
    __syncthreads();
  }
};

// Maps of packed blocks, for the copy engine.
struct WeightMaps {
  CUtensorMap maps[kMostTargets];
};

// By one thread.
template <typename Shape, typename Tiles, typename Walk>
__device__ void bring_weights(const Tiles& tiles, const WeightMaps& weights, const Walk& walk,
                              SliceRange slices, int steps, const Ring<Shape>& ring) {
  constexpr int kWeights = Tiles::kWeights, kEach = Shape::kTeamPanels / kWeights;
  RingPlace<Shape::kStages> at;
  walk.each([&](unsigned, unsigned index) {
    const typename Tiles::Tile tile(tiles, index);
    const int first = static_cast<int>(tile.index()) * (Shape::kPanels / kWeights);
    for_stages<Shape>(slices, steps, [&](int step) {
      ring.empty[at.stage].wait(at.parity ^ 1);
      Barrier& full = ring.full[at.stage];
      full.arrive_and_announce(Shape::kPanels * Shape::kStageSteps * kBlockBytes);
      std::byte* stage = ring.stages + at.stage * Shape::kStageBytes;
#pragma unroll
      for (int team = 0; team < Shape::kOutTeams; ++team) {
#pragma unroll
        for (int w = 0; w < kWeights; ++w) {
          const int place = Shape::kRowEights + (team * kWeights + w) * kEach;
          copy_box(stage + place * Shape::kStageSteps * kBlockBytes, weights.maps[tile.target(w)],
                   {step, first + team * kEach}, full);
        }
      }
      at.next();
    });
  });
}

template <typename Shape, typename Walk>
__device__ void bring_rows(const CUtensorMap& rows, const Walk& walk, SliceRange slices, int steps,
                           const Ring<Shape>& ring) {
  RingPlace<Shape::kStages> at;
  walk.each([&](unsigned row_tile, unsigned) {
    const int first = static_cast<int>(row_tile) * Shape::kRowEights;
    for_stages<Shape>(slices, steps, [&](int step) {
      ring.empty[at.stage].wait(at.parity ^ 1);
      Barrier& full = ring.full[at.stage];
      full.arrive_and_announce(Shape::kRowEights * Shape::kStageSteps * kBlockBytes);
      copy_box(ring.stages + at.stage * Shape::kStageBytes, rows, {step, first}, full);
      at.next();
    });
  });
}

// A team's way through the ring.
template <typename Shape>
class Team {
 public:
  using Sums = float[Shape::kValues];

  // `warp`: of the block, the same for all lanes of it.
  __device__ Team(const Ring<Shape>& ring, int warp)
      : row_team(warp / 4 % Shape::kRowTeams),
        out_team(warp / 4 / Shape::kRowTeams),
        ring_(ring),
        rows_(ring.stages + row_team * (kTeamRows / 8) * kStride, kStride),
        weights_(ring.stages + (Shape::kRowEights + out_team * Shape::kTeamPanels) * kStride, kStride) {}

  // Begins the sums of a slice that has stages.
  __device__ void add_slice(int slice, int steps, Sums& sums) {
    add_stage(std::true_type(), sums);
    const int end = slice_begin(slice + 1, steps);
#pragma unroll 1
    for (int step = slice_begin(slice, steps) + Shape::kStageSteps; step < end; step += Shape::kStageSteps)
      add_stage(std::false_type(), sums);
  }
  // Waits for all sums; `pin` those that are read then.
  __device__ void finish() {
    await_groups<0>();
    give_back();
    used_ = -1;
  }

  const int row_team;
  const int out_team;

 private:
  static constexpr int kStride = Shape::kStageSteps * kBlockBytes;

  template <typename Begins>
  __device__ void add_stage(Begins begins, Sums& sums) {
    ring_.full[at_.stage].wait(at_.parity);
    begin_groups();
#pragma unroll
    for (int i = 0; i < Shape::kStageSteps * 2; ++i) {
      const int moved = at_.stage * Shape::kStageBytes + i / 2 * kBlockBytes + i % 2 * kMultiplyBytes;
      if (begins && i == 0) {
        GroupMultiply<Shape::kValues>::begin(sums, rows_.moved(moved), weights_.moved(moved));
      } else {
        GroupMultiply<Shape::kValues>::add(sums, rows_.moved(moved), weights_.moved(moved));
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

template <typename Shape, typename Tiles>
TileWalk tile_walk(const Tiles& tiles, const ManyRows& rows) {
  const unsigned row_tiles = blocks_of(rows.count, Shape::kRows);
  return {row_tiles, row_tiles * tiles.tiles()};
}

// A map of packed blocks [eights][steps], copied in boxes.
struct BlockMap {
  const void* blocks;
  int64_t eights;
  int steps;
  int box_eights;
  int box_steps;
};
inline CUtensorMap tensor_map(const BlockMap& blocks) {
  constexpr cuuint32_t kElements = kBlockBytes / 2;
  const auto steps = static_cast<cuuint64_t>(blocks.steps);
  return tensor_map(BoxMap{.elements = blocks.blocks,
                           .sizes = {kElements, steps, static_cast<cuuint64_t>(blocks.eights)},
                           .strides = {kBlockBytes, steps * kBlockBytes},
                           .box = {kElements, static_cast<cuuint32_t>(blocks.box_steps),
                                   static_cast<cuuint32_t>(blocks.box_eights)}});
}

template <typename Shape>
CUtensorMap map_of_rows(const ManyRows& rows) {
  return tensor_map(BlockMap{.blocks = rows.packed.data,
                             .eights = ceil_div(rows.count, 8),
                             .steps = rows.packed.steps,
                             .box_eights = Shape::kRowEights,
                             .box_steps = Shape::kStageSteps});
}
template <typename Shape, typename Tiles>
WeightMaps maps_of_weights(const Tiles& tiles, int steps) {
  WeightMaps weights{};
  for (int t = 0; t < tiles.target_count(); ++t) {
    weights.maps[t] = tensor_map(BlockMap{.blocks = tiles.target(t).weight,
                                          .eights = panels_of(tiles.target(t).out_features),
                                          .steps = steps,
                                          .box_eights = Shape::kTeamPanels / Tiles::kWeights,
                                          .box_steps = Shape::kStageSteps});
  }
  return weights;
}

}  // namespace volley::cuda
