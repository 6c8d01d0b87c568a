// Products with bf16 weights of few rows: a block makes some panels of outputs of all rows. All its weights
// are on their way to shared memory before the rows are there; then the rows are rounded to shared memory, by
// all warps, and multiplied, by one warp for each slice of the inputs. What is in front of a product and
// behind it, where it costs a launch but little work, is done by the same block: norms of the rows, gates,
// rotary embeddings, writes to the cache.
#include <utility>

#include "core/backend/cuda/few_rows.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/program.h"

namespace volley::cuda {
namespace {

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

struct FewLaunch {
  FewRows rows;
  Window window;
  int units = 0;  // in all
};

// kUnits of a block, kGroups of eight rows.
template <int kUnits, int kGroups, typename Units>
struct FewShape {
  static constexpr int kPanels = kUnits * Units::kSlots;
  static constexpr int kTeams = kUnits * kSlices;  // warps that multiply
  static constexpr int kWarps = kTeams > 8 ? kTeams : 8;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kValues = FewTiles<kGroups>::kValues;

  static int64_t shared_bytes(const FewLaunch& args, bool norms) {
    const int64_t window = int64_t{kSlices} * args.window.steps * (kPanels + kGroups) * kWarp * 16;
    return window +
           (norms ? rms_partials_bytes(args.rows.rows, kGroups) + HeldNorm::bytes(args.rows.rows) : 0);
  }
};

template <int kUnits, int kGroups, Input kInput, typename Units>
__global__ void __launch_bounds__(FewShape<kUnits, kGroups, Units>::kThreads)
    multiply_few(Units units, FewLaunch few) {
  using Shape = FewShape<kUnits, kGroups, Units>;
  using Unit = typename Units::Unit;
  constexpr bool kNormed = kInput == Input::kNormed;
  constexpr int kSlots = Units::kSlots, kPanels = Shape::kPanels;
  constexpr int kResults = (kUnits * Shape::kValues + Shape::kThreads - 1) / Shape::kThreads;  // of a thread
  __shared__ float partials[kPanels][kSlices][Shape::kValues];
  __shared__ float scales[kGroups * 8];  // if kNormed
  extern __shared__ uint4
      held[];  // weights [panel][slice][step], rows [slice][step][group], partial squares, norm
  const FewRows& args = few.rows;
  const InputRows& rows = args.rows;
  const int steps = rows.steps(), window = few.window.steps, held_steps = kSlices * window;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  uint4* const held_rows = held + kPanels * held_steps * kWarp;
  auto* const squares = reinterpret_cast<float*>(held_rows + held_steps * kGroups * kWarp);
  const int first_unit = static_cast<int>(blockIdx.x) * kUnits, unit_count = few.units;

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
  // The thread's results. Those that are of no unit do not exist, but are dealt with as of the last one.
  struct Result {
    int unit;  // of the block
    int row;
    int n;
    bool exists;
  };
  const auto result = [&](int i) {
    const int value = i * Shape::kThreads + static_cast<int>(threadIdx.x), unit = value / Shape::kValues,
              row = value % Shape::kValues / kTileOut, last = min(kUnits, unit_count - first_unit) - 1;
    return Result{.unit = min(unit, last),
                  .row = row,
                  .n = value % kTileOut,
                  .exists = unit <= last && row < units.rows(rows.count, kGroups * 8)};
  };

  bring_weights(0);
  typename Units::Before before[kResults];
#pragma unroll
  for (int i = 0; i < kResults; ++i) {
    const Result of = result(i);
    before[i] = Unit(units, first_unit + of.unit).before(of.row, of.n, of.exists, NothingKnown());
  }
  const HeldNorm norm_weight(squares + steps * kGroups * 8);
  if constexpr (kNormed) {
    norm_weight.hold(args.norm, rows);
    __syncthreads();
  }
  await_previous();

#pragma unroll
  for (int i = 0; i < kResults; ++i) units.read_results(before[i]);
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
        const int step = step_of(first, at);
        LaneInputs weight;
        if constexpr (kNormed) weight = norm_weight.load(min(step, steps - 1), lane);
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          if constexpr (kNormed) {
            hold_squares<kGroups>(inputs[t][g], step, steps, g, squares);
            inputs[t][g] = weighted(inputs[t][g], weight);
          }
          held_rows[(at * kGroups + g) * kWarp + block_place(lane)] = rounded(inputs[t][g]);
        }
      }
    }
  };

  const int unit = warp / kSlices, slice = warp % kSlices;
  SliceSums<kGroups, kSlots> sums;
  for (int w = 0; w < few.window.count; ++w) {
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
      const uint4* panels[kSlots];
#pragma unroll
      for (int s = 0; s < kSlots; ++s) panels[s] = held + ((unit * kSlots + s) * held_steps + i) * kWarp;
      sums.add(panels, held_rows + i * kGroups * kWarp);
    }
  }
  if (unit < kUnits) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) sums.put(s, partials[unit * kSlots + s][slice]);
  }
  if constexpr (kNormed) {
    for (int row = warp; row < kGroups * 8; row += Shape::kWarps) {
      const float scale = args.norm.scale(sum_of_squares(squares + row, steps, kGroups * 8));
      if (lane == 0) scales[row] = scale;
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kResults; ++i) {
    const Result of = result(i);
    float sums_of_row[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      sums_of_row[s] = joined(partials[of.unit * kSlots + s], of.row * kTileOut + of.n);
      if constexpr (kNormed) sums_of_row[s] *= scales[of.row];
    }
    units.store(of.n, sums_of_row, before[i]);
  }
}

template <int kUnits, int kGroups, typename Units>
void launch_few(const FewRows& rows, const Units& units, const Stream& stream) {
  using Shape = FewShape<kUnits, kGroups, Units>;
  const FewLaunch few{.rows = rows,
                      .window = Window::of(rows.rows.steps(), Shape::kPanels + kGroups),
                      .units = units.count()};
  const bool norms = rows.input == Input::kNormed;
  launch("linear bf16",
         norms                          ? multiply_few<kUnits, kGroups, Input::kNormed, Units>
         : rows.input == Input::kPacked ? multiply_few<kUnits, kGroups, Input::kPacked, Units>
                                        : multiply_few<kUnits, kGroups, Input::kRows, Units>,
         Geometry{.grid = dim3(blocks_of(units.count(), kUnits)),
                  .threads = Shape::kThreads,
                  .shared_bytes = Shape::shared_bytes(few, norms)},
         stream, units, few);
}

// As a phase of a program, where one is recorded that takes it.
template <int kUnits, typename Units>
void launch_units(const BF16Products& products, const Units& units, const Stream& stream) {
  VOLLEY_ASSERT(products.rows.count <= kMostFewRows);
  const auto run = [rows = FewRows(products), units](const Stream& on) {
    if (rows.rows.count <= 8) return launch_few<kUnits, 1>(rows, units, on);
    if (rows.rows.count <= 16) return launch_few<kUnits, 2>(rows, units, on);
    launch_few<kUnits, 4>(rows, units, on);
  };
  if (stream.program != nullptr && stream.program->takes(FewRows(products), units, stream, run)) return;
  run(stream);
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

bool program_takes(const BF16Products& products, const PickedRows& picked, const LinearsArgs& args,
                   const std::function<void(const Stream&)>& launch, const Stream& stream) {
  FewRows rows(products);
  rows.picked = picked;
  return stream.program != nullptr &&
         stream.program->takes(rows, LinearUnits(args, Accumulate::kAssign), stream, launch);
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
