// Products with bf16 weights of few rows: a block makes some panels of outputs of all rows. All its weights
// are on their way to shared memory before the rows are there; then the rows are rounded to shared memory, by
// all warps, and multiplied, by one warp for each slice of the inputs. What is in front of a product and
// behind it, where it costs a launch but little work, is done by the same block: norms of the rows, gates,
// rotary embeddings, writes to the cache.
#include <utility>

#include "core/backend/cuda/cache_rows.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/products_bf16.cuh"

namespace volley::cuda {
namespace {

// ---- What is multiplied, in units, and what becomes of the sums. A unit has kSlots panels, whose weights it
// finds by `weight`, and takes sums by slot, those of output `n` of 8 of each panel, for `rows` of its rows.
// `Before` is what is read early for that: tables before the rows are there, results of earlier operations
// with the rows.

class LinearUnits {
 public:
  static constexpr int kSlots = 1;
  using Before = float;

  LinearUnits(const LinearsArgs& args, Accumulate accumulate)
      : targets_(args, kTileOut), accumulate_(accumulate) {}
  int count() const { return static_cast<int>(targets_.tiles()); }
  __device__ int64_t rows(int64_t count, int64_t) const { return count; }

  class Unit {
   public:
    __device__ Unit(const LinearUnits& all, int index)
        : place_(all.targets_.find(static_cast<unsigned>(index))),
          adds_(all.accumulate_ == Accumulate::kAdd) {}
    __device__ const uint4* weight(int, int steps) const {
      return panel_of(place_.target, place_.tile, steps);
    }
    __device__ void read_tables(int64_t, int, Before&) const {}
    __device__ void read_results(int64_t row, int n, Before& before) const {
      before = adds_ && out(n) < place_.target.out_features ? *at(row, n) : 0.0f;
    }
    __device__ void store(int64_t row, int n, const float (&sums)[kSlots], const Before& before,
                          bool exists) const {
      if (!exists || out(n) >= place_.target.out_features) return;
      const float sum = place_.target.bias != nullptr ? sums[0] + place_.target.bias[out(n)] : sums[0];
      *at(row, n) = adds_ ? before + sum : sum;
    }

   private:
    __device__ int64_t out(int n) const { return int64_t{place_.tile} * kTileOut + n; }
    __device__ float* at(int64_t row, int n) const {
      return place_.target.out + row * place_.target.out_features + out(n);
    }

    ProductTargets::Place place_;
    bool adds_;
  };

 private:
  ProductTargets targets_;
  Accumulate accumulate_;
};

class GatedUnits {
 public:
  static constexpr int kSlots = 2;
  struct Before {};

  GatedUnits(const GatedLinearsArgs& args, const PackedRows* packed)
      : targets_(args), packed_(packed != nullptr ? *packed : PackedRows{}) {}
  int count() const { return static_cast<int>(panels_of(targets_.gate.out_features)); }
  __device__ int64_t rows(int64_t count, int64_t held) const {
    return packed_.data != nullptr ? held : count;
  }

  class Unit {
   public:
    __device__ Unit(const GatedUnits& all, int index) : all_(all), targets_(all.targets_), panel_(index) {}
    __device__ const uint4* weight(int slot, int steps) const {
      return panel_of(slot == 0 ? targets_.gate : targets_.up, panel_, steps);
    }
    __device__ void read_tables(int64_t, int, Before&) const {}
    __device__ void read_results(int64_t, int, Before&) const {}
    __device__ void store(int64_t row, int n, const float (&sums)[kSlots], const Before&, bool exists) const {
      const int64_t out = int64_t{panel_} * kTileOut + n;
      if (!exists || out >= targets_.gate.out_features) return;
      const float value = targets_.joined(out, sums[0], sums[1]);
      if (all_.packed_.data != nullptr) {
        *all_.packed_.at(row, out) = __float2bfloat16_rn(value);
      } else {
        targets_.out[row * targets_.gate.out_features + out] = value;
      }
    }

   private:
    const GatedUnits& all_;
    const GatedTargets& targets_;
    int panel_;
  };

 private:
  GatedTargets targets_;
  PackedRows packed_;
};

// Queries, keys and values: the two panels of a unit are half a head apart, so that both elements of a pair
// that turns together are here in either layout.
class AttentionUnits {
 public:
  static constexpr int kSlots = 2;
  // Of a row: turns of the slots' elements, and where its key or value goes.
  struct Before {
    Turn turns[kSlots];
    int64_t place;
  };

  explicit AttentionUnits(const AttentionInputsArgs& args)
      : targets_(args.projections.linears, kSlots * kTileOut),
        has_queries_(args.turned.queries.x.data != nullptr),
        half_(static_cast<int>(head_width(args) / 2)),
        queries_(args.turned.queries),
        keys_(args.turned.keys),
        write_(args.turned.write) {}
  int count() const { return static_cast<int>(targets_.tiles()); }
  __device__ int64_t rows(int64_t count, int64_t) const { return count; }

  static int64_t head_width(const AttentionInputsArgs& args) {
    const RotateAndWriteArgs& turned = args.turned;
    return (turned.queries.x.data != nullptr ? turned.queries : turned.keys).x.shape[2];
  }

  class Unit {
   public:
    __device__ Unit(const AttentionUnits& all, int index)
        : all_(all), place_(all.targets_.find(static_cast<unsigned>(index))) {
      const int target = place_.index + (all.has_queries_ ? 0 : 1);
      kind_ = target == 0 ? kQueries : target == 1 ? kKeys : kValues;
      head_ = static_cast<int>(place_.tile) * kTileOut / all.half_;
      first_ = static_cast<int>(place_.tile) * kTileOut % all.half_;
    }
    __device__ const uint4* weight(int slot, int steps) const {
      return panel_of(place_.target, out(slot, 0) / kTileOut, steps);
    }
    __device__ void read_tables(int64_t row, int n, Before& before) const {
      if (kind_ != kValues) {
#pragma unroll
        for (int s = 0; s < kSlots; ++s) before.turns[s] = rotation().turn_of(row, pair(s, n));
      }
      before.place = kind_ != kQueries ? all_.write_.place(row) : -1;
      if (before.place >= 0) before.place += head_ * all_.write_.layout.group_stride();
    }
    __device__ void read_results(int64_t, int, Before&) const {}
    __device__ void store(int64_t row, int n, const float (&sums)[kSlots], const Before& before,
                          bool exists) const {
      float values[kSlots];
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        values[s] = place_.target.bias != nullptr ? sums[s] + place_.target.bias[out(s, n)] : sums[s];
      }
      if (kind_ != kValues) turn(n, before, values);
      if (!exists) return;
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        const int element = first_ + n + s * all_.half_;
        if (kind_ == kQueries) {
          place_.target.out[row * place_.target.out_features + out(s, n)] = values[s];
        } else if (before.place >= 0) {
          (kind_ == kKeys ? all_.write_.keys : all_.write_.values).put(before.place + element, values[s]);
        }
      }
    }

   private:
    enum Kind { kQueries, kKeys, kValues };

    __device__ int64_t out(int slot, int n) const {
      return int64_t{head_} * 2 * all_.half_ + first_ + slot * all_.half_ + n;
    }
    __device__ const Rotation& rotation() const {
      return kind_ == kQueries ? all_.queries_ : all_.keys_;
    }
    __device__ int pair(int slot, int n) const {
      return rotation().adjacent ? (first_ + n + slot * all_.half_) / 2 : first_ + n;
    }
    // Pairs lie in the two slots of a lane, or in the same slot of two lanes. All lanes take part.
    __device__ void turn(int n, const Before& before, float (&values)[kSlots]) const {
      if (!rotation().adjacent) return before.turns[0].apply(values[0], values[1]);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        const float other = __shfl_xor_sync(kAllLanes, values[s], 1);
        float a = n % 2 == 0 ? values[s] : other, b = n % 2 == 0 ? other : values[s];
        before.turns[s].apply(a, b);
        values[s] = n % 2 == 0 ? a : b;
      }
    }

    const AttentionUnits& all_;
    ProductTargets::Place place_;
    Kind kind_;
    int head_;
    int first_;  // element of the head where slot 0 begins
  };

 private:
  ProductTargets targets_;
  bool has_queries_;
  int half_;
  Rotation queries_;
  Rotation keys_;
  CacheRows write_;
};

// ---- The kernel

// How the inputs pass through shared memory: in windows of so many steps of every slice.
struct Window {
  int steps = 0;  // of a slice
  int count = 0;  // of windows

  // `runs`: of 512 bytes that a step needs.
  static Window of(int steps, int runs) {
    constexpr int64_t kRoom = 132 << 10;
    const auto longest = static_cast<int>(ceil_div(steps, kSlices));
    const auto fitting = static_cast<int>(kRoom / (kSlices * kWarp * 16 * runs));
    Window window;
    window.count = static_cast<int>(ceil_div(longest, fitting < 1 ? 1 : fitting));
    window.steps = static_cast<int>(ceil_div(longest, window.count));
    return window;
  }
};

// What the rows are before they are multiplied.
enum class Input { kRows, kNormed, kPacked };

struct FewRows {
  InputRows rows;
  NormWeights norm;   // if kNormed
  PackedRows packed;  // if kPacked
  Window window;
  int units = 0;  // in all
};

// kUnits of a block, kGroups of eight rows.
template <int kUnits, int kGroups, typename Units>
struct FewShape {
  static constexpr int kPanels = kUnits * Units::kSlots;
  static constexpr int kTiles = (kGroups + 1) / 2;
  static constexpr int kTeams = kUnits * kSlices;  // warps that multiply
  static constexpr int kWarps = kTeams > 8 ? kTeams : 8;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kValues = kGroups * 8 * kTileOut;  // of a panel

  static int64_t shared_bytes(const FewRows& args, bool norms) {
    const int64_t window = int64_t{kSlices} * args.window.steps * (kPanels + kGroups) * kWarp * 16;
    return window + (norms ? rms_partials_bytes(args.rows, kGroups) + HeldNorm::bytes(args.rows) : 0);
  }
};

template <int kUnits, int kGroups, Input kInput, typename Units>
__global__ void __launch_bounds__(FewShape<kUnits, kGroups, Units>::kThreads)
    multiply_few(Units units, FewRows args) {
  using Shape = FewShape<kUnits, kGroups, Units>;
  using Unit = typename Units::Unit;
  constexpr bool kNormed = kInput == Input::kNormed;
  constexpr int kSlots = Units::kSlots, kPanels = Shape::kPanels, kTiles = Shape::kTiles;
  constexpr int kResults = (kUnits * Shape::kValues + Shape::kThreads - 1) / Shape::kThreads;  // of a thread
  __shared__ float partials[kPanels][kSlices][Shape::kValues];
  extern __shared__ uint4
      held[];  // weights [panel][slice][step], rows [slice][step][group], partial squares, norm
  const InputRows& rows = args.rows;
  const int steps = rows.steps(), window = args.window.steps, held_steps = kSlices * window;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  uint4* const held_rows = held + kPanels * held_steps * kWarp;
  auto* const squares = reinterpret_cast<float*>(held_rows + held_steps * kGroups * kWarp);
  const int first_unit = static_cast<int>(blockIdx.x) * kUnits, unit_count = args.units;

  // The step of the inputs that is a window's i-th held one, or `steps`: none.
  const auto step_of = [&](int first, int i) {
    const int slice = i / window, step = slice_begin(slice, steps) + first + i % window;
    return step < slice_begin(slice + 1, steps) ? step : steps;
  };
  const auto bring_weights = [&](int first) {
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      if (first_unit + p / kSlots >= unit_count) break;
      const uint4* panel = Unit(units, first_unit + p / kSlots).weight(p % kSlots, steps) + lane;
      for (int i = warp; i < held_steps; i += Shape::kWarps) {
        const int step = step_of(first, i);
        if (step < steps) copy_async(held + (p * held_steps + i) * kWarp + lane, panel + step * kWarp);
      }
    }
  };
  // What the thread's results need.
  const auto result = [&](int i, int& unit, int& row, int& n) {
    const int value = i * Shape::kThreads + static_cast<int>(threadIdx.x);
    unit = value / Shape::kValues;
    row = value % Shape::kValues / kTileOut;
    n = value % kTileOut;
    return unit < kUnits && first_unit + unit < unit_count && row < units.rows(rows.count, kGroups * 8);
  };

  bring_weights(0);
  typename Units::Before before[kResults] = {};
#pragma unroll
  for (int i = 0; i < kResults; ++i) {
    int unit, row, n;
    if (result(i, unit, row, n)) Unit(units, first_unit + unit).read_tables(row, n, before[i]);
  }
  const HeldNorm norm_weight(squares + steps * kGroups * 8);
  if constexpr (kNormed) norm_weight.hold(args.norm, rows);
  await_previous();

#pragma unroll
  for (int i = 0; i < kResults; ++i) {
    int unit, row, n;
    if (result(i, unit, row, n)) Unit(units, first_unit + unit).read_results(row, n, before[i]);
  }
  float scales[kGroups];
  if constexpr (kNormed) rms_scales(rows, 0, args.norm.eps, squares, scales);
  const auto hold_rows = [&](int first) {
    if constexpr (kInput == Input::kPacked) {
      for (int i = warp; i < held_steps; i += Shape::kWarps) {
        const int step = step_of(first, i);
        if (step == steps) continue;
#pragma unroll
        for (int g = 0; g < kGroups; ++g)
          copy_async(held_rows + (i * kGroups + g) * kWarp + lane, args.packed.part(g, step) + lane);
      }
      return;
    }
    constexpr int kTogether = kGroups == 1 ? 4 : 4 / kGroups;
    for (int i = warp; i < held_steps; i += kTogether * Shape::kWarps) {
      LaneInputs inputs[kTogether][kGroups];
#pragma unroll
      for (int t = 0; t < kTogether; ++t) {
        const int at = i + t * Shape::kWarps, step = at < held_steps ? step_of(first, at) : steps;
#pragma unroll
        for (int g = 0; g < kGroups; ++g)
          inputs[t][g] = rows.load(step < steps ? g * 8 + lane / 4 : rows.count, step, lane);
      }
#pragma unroll
      for (int t = 0; t < kTogether; ++t) {
        const int at = i + t * Shape::kWarps;
        if (at >= held_steps) break;
        LaneInputs weight;
        if constexpr (kNormed) weight = norm_weight.load(min(step_of(first, at), steps - 1), lane);
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          if constexpr (kNormed) inputs[t][g] = normed(inputs[t][g], scales[g], weight);
          held_rows[(at * kGroups + g) * kWarp + block_place(lane)] = rounded(inputs[t][g]);
        }
      }
    }
  };

  const int unit = warp / kSlices, slice = warp % kSlices;
  Tile sums[kTiles][kSlots];
  for (int w = 0; w < args.window.count; ++w) {
    const int first = w * window;
    if (w > 0) {
      __syncthreads();  // the last window is used
      bring_weights(first);
    }
    hold_rows(first);
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    const int count = min(window, slice_begin(slice + 1, steps) - slice_begin(slice, steps) - first);
    if (unit >= kUnits || first_unit + unit >= unit_count) continue;
#pragma unroll 4
    for (int i = slice * window; i < slice * window + count; ++i) {
      uint4 weights[kSlots];
#pragma unroll
      for (int s = 0; s < kSlots; ++s)
        weights[s] = load_block(held + ((unit * kSlots + s) * held_steps + i) * kWarp + load_place(lane));
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const uint4* row = held_rows + (i * kGroups + 2 * t) * kWarp + load_place(lane);
        multiply_step(sums[t], load_block(row),
                      2 * t + 1 < kGroups ? load_block(row + kWarp) : make_uint4(0, 0, 0, 0), weights);
      }
    }
  }
  if (unit < kUnits) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        float* part =
            partials[unit * kSlots + s][slice] + (t * kTileRows + lane / 4) * kTileOut + lane % 4 * 2;
        part[0] = sums[t][s].values[0];
        part[1] = sums[t][s].values[1];
        if (2 * t + 1 >= kGroups) continue;
        part[8 * kTileOut] = sums[t][s].values[2];
        part[8 * kTileOut + 1] = sums[t][s].values[3];
      }
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kResults; ++i) {
    int of, row, n;
    const bool exists = result(i, of, row, n);
    float joined[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const auto& parts = partials[min(of, kUnits - 1) * kSlots + s];
      const int at = row * kTileOut + n;
      joined[s] = join_slices(parts[0][at], parts[1][at], parts[2][at], parts[3][at]);
    }
    // Lanes exchange what belongs together: all of a warp take part.
    const int last = unit_count - 1 - first_unit;
    Unit(units, first_unit + min(of, min(kUnits - 1, last))).store(row, n, joined, before[i], exists);
  }
}

template <int kUnits, int kGroups, typename Units>
void launch_few(const BF16Products& products, const Units& units, const Stream& stream) {
  using Shape = FewShape<kUnits, kGroups, Units>;
  const bool norms = products.norm != nullptr, packed = products.packed != nullptr;
  const FewRows rows{.rows = products.rows,
                     .norm = norms ? *products.norm : NormWeights{},
                     .packed = packed ? *products.packed : PackedRows{},
                     .window = Window::of(products.rows.steps(), Shape::kPanels + kGroups),
                     .units = units.count()};
  launch("linear bf16",
         norms    ? multiply_few<kUnits, kGroups, Input::kNormed, Units>
         : packed ? multiply_few<kUnits, kGroups, Input::kPacked, Units>
                  : multiply_few<kUnits, kGroups, Input::kRows, Units>,
         Geometry{.grid = dim3(blocks_of(units.count(), kUnits)),
                  .threads = Shape::kThreads,
                  .shared_bytes = Shape::shared_bytes(rows, norms)},
         stream, units, rows);
}

template <int kUnits, typename Units>
void launch_units(const BF16Products& products, const Units& units, const Stream& stream) {
  VOLLEY_ASSERT(products.rows.count <= kMostFewRows);
  if (products.rows.count <= 8) return launch_few<kUnits, 1>(products, units, stream);
  if (products.rows.count <= 16) return launch_few<kUnits, 2>(products, units, stream);
  launch_few<kUnits, 4>(products, units, stream);
}

// Units that share a block share its rows; that many blocks are enough for a device.
constexpr int kEnoughBlocks = 192;

}  // namespace

void multiply_few_rows(const BF16Products& products, const LinearsArgs& args, Accumulate accumulate,
                       const Stream& stream) {
  const LinearUnits units(args, accumulate);
  if (units.count() <= kEnoughBlocks) return launch_units<1>(products, units, stream);
  launch_units<4>(products, units, stream);
}

void multiply_few_rows(const BF16Products& products, const GatedLinearsArgs& args, const PackedRows* out,
                       const Stream& stream) {
  launch_units<3>(products, GatedUnits(args, out), stream);
}

bool few_rows_take(const AttentionInputsArgs& args) {
  return AttentionUnits::head_width(args) % (2 * kTileOut) == 0;
}

void multiply_few_rows(const BF16Products& products, const AttentionInputsArgs& args, const Stream& stream) {
  const AttentionUnits units(args);
  if (units.count() < kEnoughBlocks) return launch_units<1>(products, units, stream);
  launch_units<2>(products, units, stream);
}

}  // namespace volley::cuda
