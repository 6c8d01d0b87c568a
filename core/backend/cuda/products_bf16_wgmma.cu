// Products with bf16 weights of many rows by wgmma. A block makes tiles one after the other: a warp brings
// weights and another rows, block by block of the packed layout, to stages of shared memory; teams of four
// warps multiply them, slice by slice.
#include <algorithm>

#include "core/backend/cuda/attention_tiles.cuh"
#include "core/backend/cuda/group_results.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/row_groups.cuh"
#include "core/backend/cuda/slice_groups.cuh"

namespace volley::cuda {
namespace {

template <typename Shape, typename Tiles>
__device__ void multiply_tiles(const Tiles& tiles, const ManyRows& rows, const TileWalk& walk,
                               const Ring<Shape>& ring) {
  constexpr int kWeights = Tiles::kWeights, kEach = Shape::kTeamPanels / kWeights;
  const int lane = threadIdx.x % kWarp, warp = __shfl_sync(kAllLanes, threadIdx.x / kWarp, 0);
  const int steps = rows.packed.steps;
  Team<Shape> team(ring, warp);
  walk.each([&](unsigned row_tile, unsigned index) {
    const typename Tiles::Tile tile(tiles, index);
    const int64_t row =
        int64_t{row_tile} * Shape::kRows + team.row_team * kTeamRows + warp % 4 * kTileRows + lane / 4;
    const auto early = tile.early(row, rows.count);
    typename Team<Shape>::Sums first, second, third;
    team.add_slice(0, steps, first);
    team.add_slice(1, steps, second);
    team.finish();
    pin(first);
    pin(second);
#pragma unroll
    for (int i = 0; i < Shape::kValues; ++i) first[i] += second[i];
    const bool scales = rows.scales != nullptr;
    const float row_scales[] = {scales ? rows.scale(row) : 1.0f, scales ? rows.scale(row + 8) : 1.0f};
    team.add_slice(2, steps, second);
    team.add_slice(3, steps, third);
    team.finish();
    pin(second);
    pin(third);
#pragma unroll
    for (int i = 0; i < Shape::kValues; ++i) first[i] += second[i] + third[i];  // as join_slices
    if (scales) {
#pragma unroll
      for (int i = 0; i < Shape::kValues; ++i) first[i] *= row_scales[i / 2 % 2];
    }
    const int out =
        (static_cast<int>(tile.index()) * (Shape::kPanels / kWeights) + team.out_team * kEach) * kTileOut;
    store_sums(tile, rows.count, row, out, first, early);
  });
}

template <typename Shape, typename Tiles>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    multiply_row_groups(const __grid_constant__ Tiles tiles, const __grid_constant__ WeightMaps weights,
                        const __grid_constant__ CUtensorMap row_map, const __grid_constant__ ManyRows rows,
                        TileWalk walk) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  alignas(1024) extern __shared__ std::byte stages[];
  __shared__ Barrier full[Shape::kStages], empty[Shape::kStages];
  const Ring<Shape> ring{full, empty, stages};
  ring.init();
  if (threadIdx.x >= Shape::kTeams * kTeam) {
    give_registers<Shape::kCopying>();
    const int thread = threadIdx.x - Shape::kTeams * kTeam, steps = rows.packed.steps;
    if (thread == 0) prefetch_map(row_map);
    if (thread == 0) bring_weights(tiles, weights, walk, SliceRange(), steps, ring);
    if (thread == kWarp) {
      await_previous();
      bring_rows(row_map, walk, SliceRange(), steps, ring);
    }
  } else {
    take_registers<Shape::kMultiplying>();
    await_previous();
    multiply_tiles(tiles, rows, walk, ring);
  }
#endif
}

template <typename Shape, typename Tiles>
void launch_groups(const Tiles& tiles, const ManyRows& rows, const Stream& stream) {
  const TileWalk walk = tile_walk<Shape>(tiles, rows);
  launch("linear bf16", multiply_row_groups<Shape, Tiles>,
         Geometry{.grid = dim3(std::min(walk.count, static_cast<unsigned>(stream.processors))),
                  .threads = Shape::kThreads,
                  .shared_bytes = int64_t{Shape::kStages} * Shape::kStageBytes},
         stream, tiles, maps_of_weights<Shape>(tiles, rows.packed.steps), map_of_rows<Shape>(rows), rows,
         walk);
}

// What a tile takes in a block, in nanoseconds, as measured on an H100: two steps of inputs, and what
// surrounds them.
struct TileCost {
  int two_steps;
  int rest;
};

// Launches the shape whose tiles take the least in all; `cut(shape)` cuts the outputs. Shapes differ in time
// alone.
template <typename CutOutputs>
class Launcher {
 public:
  Launcher(const ManyRows& rows, const Stream& stream, const CutOutputs& cut)
      : rows_(rows), stream_(stream), cut_(cut) {}

  template <typename Shape>
  void offer(const TileCost& cost) {
    offer(tile_walk<Shape>(cut_(Shape()), rows_).count, rows_.packed.steps, cost, launch_shape<Shape>);
  }
  // Blocks of a slice each.
  template <typename Shape>
  void offer_slices(const TileCost& cost) {
    const int64_t tiles = tile_walk<Shape>(cut_(Shape()), rows_).count;
    offer(tiles * kSlices, rows_.packed.steps / kSlices, cost, launch_slices<Shape>);
  }
  void launch() const { best_.launch(*this); }

 private:
  struct Best {
    int64_t time;
    void (*launch)(const Launcher&);
  };

  void offer(int64_t blocks, int steps, const TileCost& cost, void (*launch)(const Launcher&)) {
    const int64_t time = ceil_div(blocks, stream_.processors) * (cost.two_steps * steps / 2 + cost.rest);
    if (time < best_.time) best_ = {time, launch};
  }
  template <typename Shape>
  static void launch_shape(const Launcher& launcher) {
    launch_groups<Shape>(launcher.cut_(Shape()), launcher.rows_, launcher.stream_);
  }
  template <typename Shape>
  static void launch_slices(const Launcher& launcher) {
    launch_slice_groups(launcher.cut_(Shape()), launcher.rows_, launcher.stream_);
  }

  const ManyRows& rows_;
  const Stream& stream_;
  const CutOutputs& cut_;
  Best best_{INT64_MAX, nullptr};
};

// Stages are of two steps where every slice has an even number of them.
constexpr int kEvenSlices = 2 * kSlices;

}  // namespace

bool has_wgmma_kernels() {
  cudaFuncAttributes attributes{};
  const cudaError_t status =
      cudaFuncGetAttributes(&attributes, multiply_row_groups<GroupShape<1, 2, 8>, LinearTiles>);
  cudaGetLastError();                                              // asking leaves no error behind
  return status == cudaSuccess && attributes.sharedSizeBytes > 0;  // a kernel without a body has no barriers
}

void multiply_row_groups(const ManyRows& rows, const LinearsArgs& args, Accumulate accumulate,
                         const Stream& stream) {
  const auto cut = [&]<typename Shape>(Shape) {
    return LinearTiles(args, accumulate, Shape::kPanels * kTileOut);
  };
  Launcher launcher(rows, stream, cut);
  if (rows.packed.steps % kEvenSlices == 0) {
    launcher.offer<GroupShape<1, 2, 4>>({160, 800});
    launcher.offer<GroupShape<1, 2, 8>>({245, 500});
    launcher.offer<GroupShape<2, 1, 12>>({290, 1500});
    launcher.offer<GroupShape<2, 1, 16>>({360, 1700});
    launcher.offer<GroupShape<1, 3, 8>>({330, 1050});
    launcher.offer_slices<SliceShape>({145, 2900});
  } else {
    launcher.offer<GroupShape<1, 2, 4, 1>>({160, 800});
    launcher.offer<GroupShape<1, 2, 8, 1>>({245, 500});
    launcher.offer<GroupShape<2, 1, 16, 1>>({360, 1700});
  }
  launcher.launch();
}

void multiply_row_groups(const ManyRows& rows, const GatedLinearsArgs& args, const PackedRows* out,
                         const Stream& stream) {
  const auto cut = [&]<typename Shape>(Shape) {
    return GatedTiles(args, out, Shape::kPanels / GatedTiles::kWeights * kTileOut);
  };
  Launcher launcher(rows, stream, cut);
  if (rows.packed.steps % kEvenSlices == 0) {
    launcher.offer<GroupShape<1, 2, 4>>({160, 1350});
    launcher.offer<GroupShape<1, 2, 8>>({245, 1150});
    launcher.offer<GroupShape<2, 1, 16>>({360, 2700});
    launcher.offer<GroupShape<1, 3, 8>>({330, 1450});
  } else {
    launcher.offer<GroupShape<1, 2, 4, 1>>({160, 1350});
    launcher.offer<GroupShape<1, 2, 8, 1>>({245, 1150});
    launcher.offer<GroupShape<2, 1, 16, 1>>({360, 2700});
  }
  launcher.launch();
}

bool row_groups_take(const AttentionInputsArgs& args) {
  const int64_t steps = ceil_div(args.projections.norm.weight.size(), kStep);
  return AttentionTiles::take(args) && steps % kEvenSlices == 0;
}

// Teams of whole heads.
void multiply_row_groups(const ManyRows& rows, const AttentionInputsArgs& args, const Stream& stream) {
  const auto cut = [&]<typename Shape>(Shape) { return AttentionTiles(args, Shape::kPanels * kTileOut); };
  Launcher launcher(rows, stream, cut);
  launcher.offer<GroupShape<1, 1, 8>>({160, 800});
  launcher.offer<GroupShape<1, 2, 8>>({245, 500});
  launcher.offer<GroupShape<2, 1, 16>>({360, 1700});
  launcher.offer<GroupShape<1, 3, 8>>({330, 1050});
  launcher.launch();
}

}  // namespace volley::cuda
