// Products with bf16 weights of many rows. Rows are rounded first, and normed if asked, into tiles that are
// what lanes need, as the panels of weights are. A block makes a tile of outputs; two of its warps take each
// slice of the inputs, one above the other. Both sides come to shared memory by asynchronous copies, some
// steps ahead.
#include <utility>

#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/products_bf16.cuh"

namespace volley::cuda {
namespace {

// ---- Rounding: a block takes eight rows.

constexpr int kRoundThreads = 128;

struct RoundRows {
  InputRows rows;
  NormWeights norm;  // weight null: none
  PackedRows packed;
};

template <bool kNormed>
__global__ void __launch_bounds__(kRoundThreads) round_rows(RoundRows args) {
  extern __shared__ float partials[];  // if kNormed; then the norm's weights
  const InputRows& rows = args.rows;
  const int steps = rows.steps(), lane = threadIdx.x % kWarp;
  const int64_t first = int64_t{blockIdx.x} * 8, row = first + lane / 4;
  const HeldNorm weight(partials + steps * 8);
  if constexpr (kNormed) weight.hold(args.norm, rows);
  await_previous();
  float scales[1] = {1.0f};
  if constexpr (kNormed) rms_scales(rows, first, args.norm.eps, partials, scales);
#pragma unroll 4
  for (int step = threadIdx.x / kWarp; step < steps; step += kRoundThreads / kWarp) {
    LaneInputs inputs = rows.load(row, step, lane);
    if constexpr (kNormed) inputs = normed(inputs, scales[0], weight.load(step, lane));
    args.packed.part(blockIdx.x, step)[lane] = rounded(inputs);
  }
}

// ---- What a tile multiplies with, and where its sums go: two neighbouring outputs of a row at a time, whose
// first is even. `Before` is what is read for that.

struct LinearTiles {
  static constexpr int kWeights = 1;
  using Before = float2;

  LinearTiles(const LinearsArgs& args, Accumulate accumulates, int64_t tile_out)
      : targets(args, tile_out), accumulate(accumulates) {}
  unsigned tiles() const { return targets.tiles(); }

  class Tile {
   public:
    __device__ Tile(const LinearTiles& all, unsigned tile)
        : place_(all.targets.find(tile)), adds_(all.accumulate == Accumulate::kAdd) {}
    __device__ unsigned index() const { return place_.tile; }
    __device__ int out_features() const { return static_cast<int>(place_.target.out_features); }
    __device__ int64_t rows(int64_t count) const { return count; }  // that are stored
    __device__ const uint4* panel(int, int panel, int steps) const {
      return panel_of(place_.target, panel, steps);
    }
    __device__ Before read(int64_t row, int out) const {
      if (!adds_) return float2{0.0f, 0.0f};
      const float* from = at(row, out);
      if (out_features() % 2 == 0) return *reinterpret_cast<const float2*>(from);
      return float2{from[0], out + 1 < out_features() ? from[1] : 0.0f};
    }
    __device__ void store(int64_t row, int out, float2 (&sums)[kWeights], const Before& before) const {
      float2 sum = sums[0];
      const float* bias = place_.target.bias;
      const bool both = out + 1 < out_features();
      if (bias != nullptr) sum = {sum.x + bias[out], sum.y + (both ? bias[out + 1] : 0.0f)};
      if (adds_) sum = {before.x + sum.x, before.y + sum.y};
      float* to = at(row, out);
      if (out_features() % 2 == 0) {
        *reinterpret_cast<float2*>(to) = sum;
      } else {
        to[0] = sum.x;
        if (both) to[1] = sum.y;
      }
    }

   private:
    __device__ float* at(int64_t row, int out) const {
      return place_.target.out + row * out_features() + out;
    }

    ProductTargets::Place place_;
    bool adds_;
  };

  ProductTargets targets;
  Accumulate accumulate;
};

struct GatedTiles {
  static constexpr int kWeights = 2;
  struct Before {};

  GatedTiles(const GatedLinearsArgs& args, const PackedRows* out, int64_t tile_out)
      : targets(args),
        packed(out != nullptr ? *out : PackedRows{}),
        count(blocks_of(args.gate.weight->out_features, tile_out)) {}
  unsigned tiles() const { return count; }

  class Tile {
   public:
    __device__ Tile(const GatedTiles& all, unsigned tile) : all_(all), index_(tile) {}
    __device__ unsigned index() const { return index_; }
    __device__ int out_features() const { return static_cast<int>(all_.targets.gate.out_features); }
    __device__ int64_t rows(int64_t count) const {
      return all_.packed.data != nullptr ? (count + kTileRows - 1) / kTileRows * kTileRows : count;
    }
    __device__ const uint4* panel(int weight, int panel, int steps) const {
      return panel_of(weight == 0 ? all_.targets.gate : all_.targets.up, panel, steps);
    }
    __device__ Before read(int64_t, int) const { return {}; }
    __device__ void store(int64_t row, int out, float2 (&sums)[kWeights], const Before&) const {
      const bool both = out + 1 < out_features();
      const float first = all_.targets.joined(out, sums[0].x, sums[1].x);
      const float second = both ? all_.targets.joined(out + 1, sums[0].y, sums[1].y) : 0.0f;
      if (all_.packed.data != nullptr) {
        *reinterpret_cast<__nv_bfloat162*>(all_.packed.at(row, out)) = __floats2bfloat162_rn(first, second);
      } else {
        float* to = all_.targets.out + row * out_features() + out;
        to[0] = first;
        if (both) to[1] = second;
      }
    }

   private:
    const GatedTiles& all_;
    unsigned index_;
  };

  GatedTargets targets;
  PackedRows packed;
  unsigned count;
};

// ---- The kernel

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

struct ManyRows {
  PackedRows packed;
  int64_t count;
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
  const uint4* row_source = rows.packed.part(int64_t{first_tile} * 2, begin) + thread;
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
          copy_async(stage + i * kTeam, row_source + (i * steps + (step - begin)) * kTeam);
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
    const uint4* stage = stages + (step - begin) % kStages * Shape::kRuns + lane;
    uint4 weights[Shape::kPanels];
#pragma unroll
    for (int n = 0; n < Shape::kPanels; ++n) weights[n] = stage[Shape::kRowRuns + n * kWarp];
#pragma unroll
    for (int t = 0; t < Shape::kWarpTiles; ++t) {
      const uint4* row = stage + (warp * Shape::kWarpTiles + t) * kTeam;
      multiply_step(sums[t], row[0], row[kWarp], weights);
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
  const auto pair = [&](int i, int64_t& row, int& out) {
    const int at = slice * (kQuarter / (4 * kWeights)) + i / 2;
    row = (int64_t{first_tile} + warp * Shape::kWarpTiles + at / kEach) * kTileRows + lane / 4 + i % 2 * 8;
    out = (first_panel + at % kEach) * kTileOut + lane % 4 * 2;
    return row < tile.rows(rows.count) && out < tile.out_features();
  };
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    int64_t row;
    int out;
    if (pair(i, row, out)) before[i] = tile.read(row, out);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    int64_t row;
    int out;
    if (!pair(i, row, out)) continue;
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
    }
    tile.store(row, out, joined, before[i]);
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

// Packs the rows unless they are, then multiplies; `tiles(shape)` cuts the outputs.
template <typename CutOutputs>
void multiply(const BF16Products& products, std::byte* scratch, const Stream& stream, const CutOutputs& cut) {
  const InputRows& rows = products.rows;
  ManyRows many{.packed = {reinterpret_cast<uint4*>(scratch), rows.steps()}, .count = rows.count};
  if (products.packed != nullptr) {
    many.packed = *products.packed;
  } else {
    const bool norms = products.norm != nullptr;
    launch("round rows", norms ? round_rows<true> : round_rows<false>,
           Geometry{.grid = dim3(blocks_of(rows.count, kTileRows) * 2),
                    .threads = kRoundThreads,
                    .shared_bytes = norms ? rms_partials_bytes(rows, 1) + HeldNorm::bytes(rows) : 0},
           stream,
           RoundRows{.rows = rows, .norm = norms ? *products.norm : NormWeights{}, .packed = many.packed});
  }
  // Wide tiles read rows and weights less often and join fewer sums, small ones are more blocks.
  constexpr int64_t kEnoughBlocks = 120;
  const auto fits = [&]<typename Shape>(Shape shape) {
    const auto tiles = cut(shape);
    if (tiles.tiles() * ceil_div(rows.count, Shape::kRows) < kEnoughBlocks) return false;
    launch_tiles<Shape>(tiles, many, stream);
    return true;
  };
  if (fits(TileShape<4, 8>()) || fits(TileShape<2, 8>())) return;
  launch_tiles<TileShape<2, 4>>(cut(TileShape<2, 4>()), many, stream);
}

}  // namespace

void multiply_many_rows(const BF16Products& products, const LinearsArgs& args, Accumulate accumulate,
                        std::byte* scratch, const Stream& stream) {
  multiply(products, scratch, stream,
           [&]<typename Shape>(Shape) { return LinearTiles(args, accumulate, Shape::kPanels * kTileOut); });
}

void multiply_many_rows(const BF16Products& products, const GatedLinearsArgs& args, const PackedRows* out,
                        std::byte* scratch, const Stream& stream) {
  multiply(products, scratch, stream, [&]<typename Shape>(Shape) {
    return GatedTiles(args, out, Shape::kPanels / GatedTiles::kWeights * kTileOut);
  });
}

}  // namespace volley::cuda
