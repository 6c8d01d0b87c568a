// Products with bf16 weights on tensor cores. Letters: R rows, N outputs, K inputs.
//
// A packed weight is [N / 8][K / 32][lane][8]: what a lane of a warp needs of 8 outputs by 32 inputs for two
// multiply-accumulates m16n8k16 lies side by side, and a warp reads it as one run of 512 bytes. Lane l holds
// output l / 4; its eight values are inputs 8 * (l % 4) .. + 7 of the 32. The order of inputs within a
// multiply- accumulate is free as long as rows follow it too.
//
// An output element is the sum, in order, of kSlices partial sums; slice s covers the same steps of 32 inputs
// for every row, and within a slice the steps follow each other. Both kernels below do exactly that: with few
// rows the slices belong to the warps of a block, with many rows a warp goes through them one after the
// other.
#include <cuda_bf16.h>

#include <type_traits>
#include <utility>

#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/multiply_accumulate.cuh"
#include "core/backend/cuda/product_targets.cuh"

namespace volley::cuda {
namespace {

constexpr int kSlices = 8;
constexpr int kHalf = kSlices / 2;
constexpr int kStep = 32;      // inputs of a step
constexpr int kTileOut = 8;    // outputs of a multiply-accumulate
constexpr int kTileRows = 16;  // rows of one
constexpr int kMostFewRows = 2 * kTileRows;

// First step of a slice.
__host__ __device__ constexpr int slice_begin(int slice, int steps) {
  return slice * steps / kSlices;
}

struct Tile {
  float values[4] = {};  // (row l / 4, outputs 2 * (l % 4) and the next), (row l / 4 + 8, the same)
};

__device__ uint32_t two_bf16(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// A lane's eight inputs of a row, rounded.
struct RowPart {
  uint32_t values[4] = {};
};

__device__ RowPart load_row_part(const float* x) {
  const float4 a = *reinterpret_cast<const float4*>(x), b = *reinterpret_cast<const float4*>(x + 4);
  return {{two_bf16(a.x, a.y), two_bf16(a.z, a.w), two_bf16(b.x, b.y), two_bf16(b.z, b.w)}};
}

// Near the end of rows whose width is no multiple of 32, or is not aligned.
__device__ RowPart load_row_part_carefully(const float* x, int count) {
  float values[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = i < count ? x[i] : 0.0f;
  return {{two_bf16(values[0], values[1]), two_bf16(values[2], values[3]), two_bf16(values[4], values[5]),
           two_bf16(values[6], values[7])}};
}

// One step of 32 inputs: `upper` and `lower` are the lane's parts of rows l / 4 and l / 4 + 8.
__device__ void multiply_step(Tile& tile, const RowPart& upper, const RowPart& lower, const uint4& weight) {
  multiply_accumulate(tile.values, {upper.values[0], lower.values[0], upper.values[1], lower.values[1]},
                      weight.x, weight.y);
  multiply_accumulate(tile.values, {upper.values[2], lower.values[2], upper.values[3], lower.values[3]},
                      weight.z, weight.w);
}

__device__ uint4 load_weight(const uint4* panel, int step, int lane) {
  return __ldg(panel + step * kWarp + lane);
}

// The weights of a block and where its results go. Panels are 8 outputs of a weight.
template <typename Targets>
class PanelsOf;

template <>
class PanelsOf<ProductTargets> {
 public:
  static constexpr int kWeights = 1;

  __device__ PanelsOf(const ProductTargets& targets, unsigned tile) : place_(targets.find(tile)) {}
  __device__ unsigned first_panel() const { return place_.tile; }
  __device__ int64_t out_features() const { return place_.target.out_features; }
  __device__ const uint4* panel(int, int steps) const { return panel_at(0, place_.tile, steps); }
  __device__ const uint4* panel_at(int, int64_t panel, int steps) const {
    return reinterpret_cast<const uint4*>(place_.target.weight) + panel * steps * kWarp;
  }
  __device__ float before(int64_t row, int64_t n, Accumulate accumulate) const {
    return accumulate == Accumulate::kAdd ? place_.target.out[row * place_.target.out_features + n] : 0.0f;
  }
  __device__ void store(int64_t row, int64_t n, const float (&results)[1], float before,
                        Accumulate accumulate) const {
    place_.target.store(row, n, results[0], before, accumulate);
  }

 private:
  ProductTargets::Place place_;
};

template <>
class PanelsOf<GatedTargets> {
 public:
  static constexpr int kWeights = 2;

  __device__ PanelsOf(const GatedTargets& targets, unsigned tile) : targets_(targets), tile_(tile) {}
  __device__ unsigned first_panel() const { return tile_; }
  __device__ int64_t out_features() const { return targets_.gate.out_features; }
  __device__ const uint4* panel(int weight, int steps) const { return panel_at(weight, tile_, steps); }
  __device__ const uint4* panel_at(int weight, int64_t panel, int steps) const {
    return reinterpret_cast<const uint4*>(weight == 0 ? targets_.gate.weight : targets_.up.weight) +
           panel * steps * kWarp;
  }
  __device__ float before(int64_t, int64_t, Accumulate) const { return 0.0f; }
  __device__ void store(int64_t row, int64_t n, const float (&results)[2], float, Accumulate) const {
    targets_.store(row, n, results[0], results[1]);
  }

 private:
  const GatedTargets& targets_;
  unsigned tile_;
};

// ---- Few rows: a block makes 8 outputs of up to 16 * kTiles rows, a warp for each slice.

// Weights of a slice that are asked for before the rows are there.
constexpr int kAhead = 4;

template <int kTiles, bool kAligned, typename Targets>
__global__ void __launch_bounds__(kSlices* kWarp, 2) multiply_few(Targets targets, ProductRows rows) {
  constexpr int kWeights = PanelsOf<Targets>::kWeights;
  __shared__ float partials[kWeights][kSlices][kTiles * kTileRows * kTileOut];
  const PanelsOf<Targets> panels(targets, blockIdx.x);
  const int steps = (rows.in_features + kStep - 1) / kStep;
  const int lane = threadIdx.x % kWarp, slice = threadIdx.x / kWarp;
  const int64_t first_row = int64_t{blockIdx.y} * kTiles * kTileRows + lane / 4;
  const int begin = slice_begin(slice, steps), end = slice_begin(slice + 1, steps);

  uint4 weights[kAhead][kWeights];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
#pragma unroll
    for (int w = 0; w < kWeights; ++w) {
      weights[i][w] =
          begin + i < end ? load_weight(panels.panel(w, steps), begin + i, lane) : make_uint4(0, 0, 0, 0);
    }
  }
  await_previous();

  const auto row_part = [&](int64_t row, int step) {
    if (row >= rows.count || step >= end) return RowPart{};
    const int k = step * kStep + lane % 4 * 8;
    const float* x = rows.x + row * rows.in_features + k;
    return kAligned ? load_row_part(x) : load_row_part_carefully(x, rows.in_features - k);
  };
  // What the results are added to is asked for with the rows.
  const int64_t out_row = int64_t{blockIdx.y} * kTiles * kTileRows + threadIdx.x / kTileOut;
  const int64_t out_n = int64_t{panels.first_panel()} * kTileOut + threadIdx.x % kTileOut;
  constexpr int kResults = kTiles * kTileRows * kTileOut;
  static_assert(kResults <= kSlices * kWarp);
  const bool stores = threadIdx.x < kResults && out_row < rows.count && out_n < panels.out_features();
  const float before = stores ? panels.before(out_row, out_n, rows.accumulate) : 0.0f;

  Tile sums[kTiles][kWeights];
  for (int first = begin; first < end; first += kAhead) {
    RowPart upper[kAhead][kTiles], lower[kAhead][kTiles];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int64_t row = first_row + t * kTileRows;
        upper[i][t] = row_part(row, first + i);
        lower[i][t] = row_part(row + 8, first + i);
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      uint4 weight[kWeights];
#pragma unroll
      for (int w = 0; w < kWeights; ++w) {
        weight[w] = weights[i][w];
        const int ahead = first + i + kAhead;
        if (ahead < end) weights[i][w] = load_weight(panels.panel(w, steps), ahead, lane);
      }
      // Steps behind the slice's end add nothing, not even a zero.
      if (first + i >= end) continue;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int w = 0; w < kWeights; ++w) multiply_step(sums[t][w], upper[i][t], lower[i][t], weight[w]);
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int w = 0; w < kWeights; ++w) {
      float* part = partials[w][slice] + (t * kTileRows + lane / 4) * kTileOut + lane % 4 * 2;
      part[0] = sums[t][w].values[0];
      part[1] = sums[t][w].values[1];
      part[8 * kTileOut] = sums[t][w].values[2];
      part[8 * kTileOut + 1] = sums[t][w].values[3];
    }
  }
  __syncthreads();
  if (!stores) return;
  float results[kWeights];
#pragma unroll
  for (int w = 0; w < kWeights; ++w) {
    float halves[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      halves[h] = partials[w][h * kHalf][threadIdx.x];
#pragma unroll
      for (int s = 1; s < kHalf; ++s) halves[h] += partials[w][h * kHalf + s][threadIdx.x];
    }
    results[w] = halves[0] + halves[1];
  }
  panels.store(out_row, out_n, results, before, rows.accumulate);
}

// ---- Many rows. Rows are rounded first, into tiles [R / 16][K / 32][half][lane][8] that are what lanes
// need, as those of weights are. A block then makes 64 outputs of 64 rows with 4 warps, each 32 by 32; both
// sides come to shared memory by asynchronous copies, some steps ahead.

constexpr int kManyRows = 64;
constexpr int kHalfThreads = 128;
constexpr int kManyThreads = 2 * kHalfThreads;
constexpr int kStages = 6;  // of each half: two blocks fill a processor's shared memory
constexpr int kStageRows = kManyRows / kTileRows * 2 * kWarp;  // runs of 16 bytes
template <int kPanels>
inline constexpr int kStageRuns = kStageRows + kPanels* kWarp;  // of a step

__global__ void round_rows(ProductRows rows, int steps, uint4* packed, int64_t runs) {
  await_previous();
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i >= runs) return;
  const int lane = i % kWarp, half = i / kWarp % 2;
  const int64_t step = i / (2 * kWarp) % steps, tile = i / (2 * kWarp) / steps;
  const int64_t row = tile * kTileRows + half * 8 + lane / 4;
  const int64_t k = step * kStep + lane % 4 * 8;
  RowPart part;
  if (row < rows.count) {
    part =
        load_row_part_carefully(rows.x + row * rows.in_features + k, rows.in_features - static_cast<int>(k));
  }
  packed[i] = *reinterpret_cast<const uint4*>(part.values);
}

__device__ void copy_async(uint4* to, const uint4* from, bool exists) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = exists ? 16 : 0;  // what does not exist is filled with zeros
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes));
}

// kPanels: of a block, all weights together.
template <int kPanels, typename Targets>
__global__ void __launch_bounds__(kManyThreads)
    multiply_many(Targets targets, ProductRows rows, const uint4* rounded, int steps) {
  constexpr int kWeights = PanelsOf<Targets>::kWeights;
  constexpr int kWarpPanels = kPanels / 2, kEach = kWarpPanels / kWeights;  // of a warp; of each weight
  constexpr int kRuns = kStageRuns<kPanels>, kStageWeights = kPanels * kWarp;
  extern __shared__ uint4 all_held[];
  auto held = reinterpret_cast<uint4(*)[kStages][kRuns]>(all_held);
  const PanelsOf<Targets> outputs(targets, blockIdx.x);
  const int half = threadIdx.x / kHalfThreads, thread = threadIdx.x % kHalfThreads;
  const int lane = thread % kWarp, warp = thread / kWarp;
  const int begin = slice_begin(half * kHalf, steps), end = slice_begin((half + 1) * kHalf, steps);
  const int warp_tile = warp % 2 * 2, warp_panel = warp / 2;
  const int64_t tiles = (rows.count + kTileRows - 1) / kTileRows;
  const int64_t first_tile = int64_t{blockIdx.y} * (kManyRows / kTileRows);
  const int64_t panels = (outputs.out_features() + kTileOut - 1) / kTileOut;
  const int64_t first_panel = int64_t{outputs.first_panel()} * (kPanels / kWeights);

  // What a thread copies of every step: where the first step's lies, and whether it exists.
  constexpr int kRowRuns = kStageRows / kHalfThreads, kWeightRuns = kStageWeights / kHalfThreads;
  const uint4* row_source[kRowRuns];
  const uint4* weight_source[kWeightRuns];
  bool has_row[kRowRuns], has_weight[kWeightRuns];
#pragma unroll
  for (int i = 0; i < kRowRuns; ++i) {
    const int run = i * kHalfThreads + thread;
    const int64_t tile = first_tile + run / (2 * kWarp);
    has_row[i] = tile < tiles;
    row_source[i] = rounded + (has_row[i] ? tile : 0) * steps * 2 * kWarp + run % (2 * kWarp);
  }
#pragma unroll
  for (int i = 0; i < kWeightRuns; ++i) {
    // Of the panels of a warp, kEach are of every weight.
    const int run = i * kHalfThreads + thread, slot = run / kWarp;
    const int64_t panel = first_panel + slot / kWarpPanels * kEach + slot % kEach;
    has_weight[i] = panel < panels;
    weight_source[i] =
        outputs.panel_at(slot % kWarpPanels / kEach, has_weight[i] ? panel : 0, steps) + run % kWarp;
  }
  const auto bring_weights = [&](int step) {
    uint4* stage = held[half][(step - begin) % kStages] + kStageRows + thread;
#pragma unroll
    for (int i = 0; i < kWeightRuns; ++i) {
      copy_async(stage + i * kHalfThreads, weight_source[i] + (step < end ? step : 0) * kWarp,
                 has_weight[i] && step < end);
    }
  };
  const auto bring_rows = [&](int step) {
    uint4* stage = held[half][(step - begin) % kStages] + thread;
#pragma unroll
    for (int i = 0; i < kRowRuns; ++i) {
      copy_async(stage + i * kHalfThreads, row_source[i] + (step < end ? step : 0) * 2 * kWarp,
                 has_row[i] && step < end);
    }
    asm volatile("cp.async.commit_group;");
  };

#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) bring_weights(begin + step);
  await_previous();
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) bring_rows(begin + step);

  Tile totals[2][kWarpPanels], sums[2][kWarpPanels];
  int slice = half * kHalf;
  const int last_slice = slice + kHalf;
  for (int step = begin; step < end; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2));
    asm volatile("bar.sync %0, %1;" ::"r"(half + 1), "n"(kHalfThreads));
    bring_weights(step + kStages - 1);
    bring_rows(step + kStages - 1);
    const uint4* stage = held[half][(step - begin) % kStages];
    uint4 weights[kWarpPanels];
#pragma unroll
    for (int n = 0; n < kWarpPanels; ++n)
      weights[n] = stage[kStageRows + (warp_panel * kWarpPanels + n) * kWarp + lane];
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      RowPart upper, lower;
      *reinterpret_cast<uint4*>(upper.values) = stage[((warp_tile + t) * 2) * kWarp + lane];
      *reinterpret_cast<uint4*>(lower.values) = stage[((warp_tile + t) * 2 + 1) * kWarp + lane];
#pragma unroll
      for (int n = 0; n < kWarpPanels; ++n) multiply_step(sums[t][n], upper, lower, weights[n]);
    }
    // Slices that end here, empty ones included, are added in order.
    while (slice < last_slice && slice_begin(slice + 1, steps) <= step + 1) {
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int n = 0; n < kWarpPanels; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            totals[t][n].values[e] =
                slice % kHalf == 0 ? sums[t][n].values[e] : totals[t][n].values[e] + sums[t][n].values[e];
            sums[t][n].values[e] = 0.0f;
          }
        }
      }
      ++slice;
    }
  }
  // The second half hands its sums to the first.
  asm volatile("cp.async.wait_all;");
  __syncthreads();
  auto* handed = reinterpret_cast<float*>(all_held);
  if (half == 1) {
#pragma unroll
    for (int i = 0; i < 8 * kWarpPanels; ++i)
      handed[i * kHalfThreads + thread] = totals[i / (4 * kWarpPanels)][i / 4 % kWarpPanels].values[i % 4];
  }
  __syncthreads();
  if (half == 1) return;
#pragma unroll
  for (int i = 0; i < 8 * kWarpPanels; ++i)
    totals[i / (4 * kWarpPanels)][i / 4 % kWarpPanels].values[i % 4] += handed[i * kHalfThreads + thread];
#pragma unroll
  for (int t = 0; t < 2; ++t) {
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t row = (first_tile + warp_tile + t) * kTileRows + lane / 4 + e / 2 * 8;
        const int64_t out = (first_panel + warp_panel * kEach + n) * kTileOut + lane % 4 * 2 + e % 2;
        if (row >= rows.count || out >= outputs.out_features()) continue;
        float results[kWeights];
#pragma unroll
        for (int w = 0; w < kWeights; ++w) results[w] = totals[t][w * kEach + n].values[e];
        outputs.store(row, out, results, outputs.before(row, out, rows.accumulate), rows.accumulate);
      }
    }
  }
}

__global__ void pack_bf16(const float* weight, int64_t out, int64_t in, int64_t steps, int64_t count,
                          uint16_t* packed) {
  await_previous();
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i >= count) return;
  const int64_t value = i % 8, lane = i / 8 % kWarp, step = i / (8 * kWarp) % steps,
                panel = i / (8 * kWarp * steps);
  const int64_t n = panel * kTileOut + lane / 4, k = step * kStep + lane % 4 * 8 + value;
  const __nv_bfloat16 rounded = __float2bfloat16_rn(n < out && k < in ? weight[n * in + k] : 0.0f);
  packed[i] = __bfloat16_as_ushort(rounded);
}

}  // namespace

namespace {

template <int kTiles, typename Targets>
void multiply_few_rows(const Targets& targets, unsigned tiles, const ProductRows& rows, bool aligned,
                       const Stream& stream) {
  const dim3 grid(tiles, blocks_of(rows.count, kTiles * kTileRows));
  const auto kernel = aligned ? multiply_few<kTiles, true, Targets> : multiply_few<kTiles, false, Targets>;
  launch("linear bf16", kernel, grid, kSlices * kWarp, stream, targets, rows);
}

// `tile(panels)` gives the targets cut into tiles of so many panels, and their number.
template <typename Tiles>
void multiply_rows(const ProductRows& rows, const Tiles& tile, std::byte* rounded, const Stream& stream) {
  const bool aligned = rows.in_features % kStep == 0 && reinterpret_cast<uintptr_t>(rows.x) % 16 == 0;
  if (rows.count <= kMostFewRows) {
    const auto [targets, tiles] = tile(1);
    if (rows.count <= kTileRows) return multiply_few_rows<1>(targets, tiles, rows, aligned, stream);
    return multiply_few_rows<2>(targets, tiles, rows, aligned, stream);
  }
  const auto steps = static_cast<int>(ceil_div(rows.in_features, kStep));
  const int64_t runs = ceil_div(rows.count, kTileRows) * steps * 2 * kWarp;
  auto* packed = reinterpret_cast<uint4*>(rounded);
  launch("round rows", round_rows, blocks_of(runs, 256), 256, stream, rows, steps, packed, runs);
  const auto many = [&](auto panels) {
    const auto [targets, tiles] = tile(panels);
    using Targets = std::remove_cvref_t<decltype(targets)>;
    launch("linear bf16", multiply_many<panels, Targets>,
           Geometry{.grid = dim3(tiles, blocks_of(rows.count, kManyRows)),
                    .threads = kManyThreads,
                    .shared_bytes = 2 * kStages * kStageRuns<panels> * 16},
           stream, targets, rows, packed, steps);
  };
  // Few tiles of rows: narrower ones, for more blocks.
  if (rows.count <= 2 * kManyRows) {
    many(std::integral_constant<int, 4>());
  } else {
    many(std::integral_constant<int, 8>());
  }
}

}  // namespace

void launch_products_bf16(const LinearsArgs& args, Accumulate accumulate, std::byte* rounded,
                          const Stream& stream) {
  const ProductRows rows(args, accumulate);
  if (rows.count == 0) return;
  multiply_rows(
      rows,
      [&](int panels) {
        const ProductTargets targets(args, panels * kTileOut);
        return std::pair(targets, targets.tiles());
      },
      rounded, stream);
}

int64_t rounded_rows_bytes(int64_t rows, int64_t in_features) {
  if (rows <= kMostFewRows) return 0;
  return ceil_div(rows, kTileRows) * kTileRows * ceil_div(in_features, kStep) * kStep * 2;
}

void launch_gated_products_bf16(const GatedLinearsArgs& args, std::byte* rounded, const Stream& stream) {
  const ProductRows rows(args.x, *args.gate.weight, Accumulate::kAssign);
  if (rows.count == 0) return;
  multiply_rows(
      rows,
      [&](int panels) {
        const int64_t each = panels == 1 ? kTileOut : panels / 2 * kTileOut;
        return std::pair(GatedTargets(args), blocks_of(args.gate.weight->out_features, each));
      },
      rounded, stream);
}

int64_t packed_elements_bf16(int64_t out, int64_t in) {
  return ceil_div(out, kTileOut) * kTileOut * ceil_div(in, kStep) * kStep;
}

void launch_pack_bf16(const float* weight, int64_t out, int64_t in, uint16_t* packed, const Stream& stream) {
  const int64_t count = packed_elements_bf16(out, in);
  launch("pack bf16", pack_bf16, blocks_of(count, 256), 256, stream, weight, out, in, ceil_div(in, kStep),
         count, packed);
}

}  // namespace volley::cuda
