// Products with bf16 weights of many rows without wgmma. A block makes a tile of outputs; two of its warps
// take each slice of the inputs, one above the other. Both sides come to shared memory by asynchronous
// copies, some steps ahead.
#include <utility>

#include "core/backend/cuda/product_tiles.cuh"

namespace volley::cuda {
namespace {

constexpr int kTeamWarps = 2;              // of a slice
constexpr int kTeam = kTeamWarps * kWarp;  // threads
constexpr int kManyThreads = kSlices * kTeam;

// A warp's share of a tile: tiles of 16 rows, panels of 8 outputs (of all weights together).
template <int kRowTiles, int kAllPanels>
struct TileShape {
  static constexpr int kWarpTiles = kRowTiles, kPanels = kAllPanels;
  static constexpr int kBlockTiles = kTeamWarps * kRowTiles, kRows = kBlockTiles * kTileRows;
  // Runs of 16 bytes that a step of a slice needs: rows, then weights.
  static constexpr int kRowRuns = kBlockTiles * 2 * kWarp, kRuns = kRowRuns + kPanels * kWarp;
  static constexpr int kValues = kRowTiles * kPanels * 4;  // sums of a thread
  static constexpr int kBlocks = kValues > 64 ? 1 : 2;     // of a processor
  static constexpr int kStages = (kBlocks == 1 ? 200 << 10 : 112 << 10) / (kSlices * kRuns * 16);
  static constexpr int64_t kSharedBytes = int64_t{kSlices} * kStages * kRuns * 16;
  // The sums of every thread pass through it.
  static_assert(kSharedBytes >= kManyThreads * kValues * 4);
};

// What does not exist, of rows or panels behind the last, is left as it lies in shared memory: it spoils sums
// that nobody stores.
template <typename Shape, typename Tiles>
__global__ void __launch_bounds__(kManyThreads, Shape::kBlocks) multiply_many(Tiles tiles, ManyRows rows) {
  constexpr int kWeights = Tiles::kWeights, kEach = Shape::kPanels / kWeights;  // panels of a weight
  constexpr int kStages = Shape::kStages;
  extern __shared__ uint4 held[];
  const typename Tiles::Tile tile(tiles, blockIdx.x);
  const int slice = threadIdx.x / kTeam, thread = threadIdx.x % kTeam, lane = thread % kWarp,
            warp = thread / kWarp;
  const int steps = rows.packed.steps, begin = slice_begin(slice, steps), end = slice_begin(slice + 1, steps);
  const int row_tiles = static_cast<int>((rows.count + kTileRows - 1) / kTileRows);
  const int first_tile = static_cast<int>(blockIdx.y) * Shape::kBlockTiles;
  const int panels = (tile.out_features() + kTileOut - 1) / kTileOut;
  const int first_panel = static_cast<int>(tile.index()) * kEach;
  uint4* const stages = held + slice * kStages * Shape::kRuns;

  // A team copies a tile's step at once, or two panels'.
  const int existing_tiles = min(row_tiles - first_tile, Shape::kBlockTiles);
  const uint4* row_source = rows.packed.part(int64_t{first_tile} * 2 + warp, begin) + lane;
  const uint4* weight_source[kWeights];
#pragma unroll
  for (int w = 0; w < kWeights; ++w)
    weight_source[w] = tile.panel(w, first_panel + warp, steps) + begin * kWarp + lane;
  const auto bring_weights = [&](int step) {
    if (step >= end) return;
    uint4* stage = stages + (step - begin) % kStages * Shape::kRuns + Shape::kRowRuns + thread;
#pragma unroll
    for (int i = 0; i < Shape::kPanels / kTeamWarps; ++i) {
      const int of_weight = i % (kEach / kTeamWarps) * kTeamWarps;  // without `warp`
      const uint4* from =
          weight_source[i / (kEach / kTeamWarps)] + (of_weight * steps + (step - begin)) * kWarp;
      if (first_panel + of_weight + warp < panels) copy_async(stage + i * kTeam, from);
    }
  };
  const auto bring_rows = [&](int step) {
    if (step < end) {
      uint4* stage = stages + (step - begin) % kStages * Shape::kRuns + thread;
#pragma unroll
      for (int i = 0; i < Shape::kBlockTiles; ++i) {
        if (i < existing_tiles)
          copy_async(stage + i * kTeam, row_source + (i * 2 * steps + (step - begin)) * kWarp);
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };

#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) bring_weights(begin + step);
  await_previous();
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) bring_rows(begin + step);

  Tile sums[Shape::kWarpTiles][Shape::kPanels];
  for (int step = begin; step < end; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    asm volatile("bar.sync %0, %1;" ::"r"(slice + 1), "n"(kTeam) : "memory");
    bring_weights(step + kStages - 1);
    bring_rows(step + kStages - 1);
    const uint4* stage = stages + (step - begin) % kStages * Shape::kRuns + load_place(lane);
    uint4 weights[Shape::kPanels];
#pragma unroll
    for (int n = 0; n < Shape::kPanels; ++n) weights[n] = load_block(stage + Shape::kRowRuns + n * kWarp);
#pragma unroll
    for (int t = 0; t < Shape::kWarpTiles; ++t) {
      const uint4* row = stage + (warp * Shape::kWarpTiles + t) * kTeam;
      multiply_step(sums[t], load_block(row), load_block(row + kWarp), weights);
    }
  }
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();

  // The slices' sums are joined, a quarter of a thread's values by its counterpart in each slice. Values by
  // row tile, panel of a weight, weight, place: what is stored together stays together.
  constexpr int kQuarter = Shape::kValues / kSlices;
  static_assert(kQuarter % (4 * kWeights) == 0);
  auto* exchange = reinterpret_cast<float*>(held);
#pragma unroll
  for (int i = 0; i < Shape::kValues; ++i) {
    const int place = i % 4, weight = i / 4 % kWeights, n = i / (4 * kWeights) % kEach;
    exchange[(slice * Shape::kValues + i) * kTeam + thread] =
        sums[i / (4 * kWeights * kEach)][weight * kEach + n].values[place];
  }
  constexpr int kPairs = kQuarter / (2 * kWeights);
  typename Tiles::Before before[kPairs];
  const auto row_of = [&](int i) {
    const int at = slice * (kQuarter / (4 * kWeights)) + i / 2;
    const int64_t row =
        (int64_t{first_tile} + warp * Shape::kWarpTiles + at / kEach) * kTileRows + lane / 4 + i % 2 * 8;
    return tile.row(row, rows.count, (first_panel + at % kEach) * kTileOut + lane % 4 * 2);
  };
#pragma unroll
  for (int i = 0; i < kPairs; ++i) before[i] = row_of(i).template read<false>(0);
  const auto scale_of = [&](int i) {
    const int at = slice * (kQuarter / (4 * kWeights)) + i / 2;
    return rows.scale((int64_t{first_tile} + warp * Shape::kWarpTiles + at / kEach) * kTileRows + lane / 4 +
                      i % 2 * 8);
  };
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    float2 joined[kWeights];
#pragma unroll
    for (int w = 0; w < kWeights; ++w) {
      const auto sum = [&](int place) {
        const int value = slice * kQuarter + (i / 2 * kWeights + w) * 4 + i % 2 * 2 + place;
        const float* part = exchange + value * kTeam + thread;
        constexpr int kNext = Shape::kValues * kTeam;
        return join_slices(part[0], part[kNext], part[2 * kNext], part[3 * kNext]);
      };
      joined[w] = {sum(0), sum(1)};
      if (rows.scales != nullptr) joined[w] = {joined[w].x * scale_of(i), joined[w].y * scale_of(i)};
    }
    row_of(i).template store<false>(0, joined, before[i]);
  }
}

template <typename Shape, typename Tiles>
void launch_tiles(const Tiles& tiles, const ManyRows& rows, const Stream& stream) {
  launch("linear bf16", multiply_many<Shape, Tiles>,
         Geometry{.grid = dim3(tiles.tiles(), blocks_of(rows.count, Shape::kRows)),
                  .threads = kManyThreads,
                  .shared_bytes = Shape::kSharedBytes},
         stream, tiles, rows);
}

// `cut(shape)` cuts the outputs.
template <typename CutOutputs>
void multiply(const ManyRows& rows, const Stream& stream, const CutOutputs& cut) {
  // Wide tiles read rows and weights less often and join fewer sums, small ones are more blocks.
  constexpr int64_t kEnoughBlocks = 120;
  const auto fits = [&]<typename Shape>(Shape shape) {
    const auto tiles = cut(shape);
    if (tiles.tiles() * ceil_div(rows.count, Shape::kRows) < kEnoughBlocks) return false;
    launch_tiles<Shape>(tiles, rows, stream);
    return true;
  };
  if (fits(TileShape<4, 8>()) || fits(TileShape<2, 8>())) return;
  launch_tiles<TileShape<2, 4>>(cut(TileShape<2, 4>()), rows, stream);
}

}  // namespace

void multiply_many_rows(const ManyRows& rows, const LinearsArgs& args, Accumulate accumulate,
                        const Stream& stream) {
  multiply(rows, stream,
           [&]<typename Shape>(Shape) { return LinearTiles(args, accumulate, Shape::kPanels * kTileOut); });
}

void multiply_many_rows(const ManyRows& rows, const GatedLinearsArgs& args, const PackedRows* out,
                        const Stream& stream) {
  multiply(rows, stream, [&]<typename Shape>(Shape) {
    return GatedTiles(args, out, Shape::kPanels / GatedTiles::kWeights * kTileOut);
  });
}

}  // namespace volley::cuda
