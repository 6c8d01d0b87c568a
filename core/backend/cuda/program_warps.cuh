#pragma once

// What the warps of a program's block do with a phase. kMultiplyWarps warps find where their results go, wait
// for the phase before, take its rows, multiply and store. A team of warps more is for attention alone.

#include "core/backend/cuda/program_rows.cuh"

namespace volley::cuda {

// ---- A product

// The panels that a warp multiplies together: its slice of every kPanelsAtOnce-th of those that are planned.
struct WarpPanels {
  __device__ WarpPanels(const ProgramPhase& phase, int panels)
      : first(static_cast<int>(threadIdx.x) / kWarp / kSlices),
        count((panels - first + kPanelsAtOnce - 1) / kPanelsAtOnce) {
    const int slice = static_cast<int>(threadIdx.x) / kWarp % kSlices;
    begin = slice_begin(slice, phase.steps);
    end = slice_begin(slice + 1, phase.steps);
  }
  // Of the block's panels.
  __device__ int index_of(int panel) const { return first + panel * kPanelsAtOnce; }

  int first;
  int count;
  int begin;  // of the slice, in steps
  int end;
};

// Leaves the sums of a warp's panels in the partials. Whether the lane may have met a NaN in the first
// `rows`.
template <int kPanels, int kGroups>
__device__ bool multiply_panels(const WarpPanels& mine, int rows, const BlockPlan& plan,
                                const ProgramBlock<kGroups>& block) {
  const auto* stages = reinterpret_cast<const uint4*>(block.ring.stages);
  const int ring_steps = block.ring.count * kStageSteps,
            slice = static_cast<int>(threadIdx.x) / kWarp % kSlices;
  int places[kPanels];  // of the next step, in steps of the ring
#pragma unroll
  for (int p = 0; p < kPanels; ++p) {
    places[p] = plan.places[mine.index_of(p)] + mine.begin;
    if (places[p] >= ring_steps) places[p] -= ring_steps;
  }
  SliceSums<kGroups, kPanels> sums;
#pragma unroll 2
  for (int step = mine.begin; step < mine.end; ++step) {
    const uint4* panels[kPanels];
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      panels[p] = stages + places[p] * kWarp;
      if (++places[p] == ring_steps) places[p] = 0;
    }
    sums.add(panels, block.rows + step * kGroups * kWarp);
  }
#pragma unroll
  for (int p = 0; p < kPanels; ++p) sums.put(p, block.partials[mine.index_of(p)][slice]);
  return sums.may_have_nan(rows);
}

// By a warp: its slice of `units` that are planned.
template <int kGroups>
__device__ bool multiply_slice(const ProgramPhase& phase, int units, const BlockPlan& plan,
                               const ProgramBlock<kGroups>& block) {
  constexpr int kMostPanels = 2 * kUnitsTogether<kGroups> / kPanelsAtOnce;
  static_assert(kMostPanels <= 4);
  const WarpPanels mine(phase, units * phase.slots);
  const auto rows = static_cast<int>(phase.rows.rows.count);
  if (mine.count == 1) return multiply_panels<1>(mine, rows, plan, block);
  if (mine.count == 2) return multiply_panels<2>(mine, rows, plan, block);
  if constexpr (kMostPanels == 4) {
    if (mine.count == 3) return multiply_panels<3>(mine, rows, plan, block);
    if (mine.count == 4) return multiply_panels<4>(mine, rows, plan, block);
  }
  return false;
}

// What a result needs but its sums, of the units of any phase.
union Before {
  LinearUnits::Before linear;
  AttentionUnits::Before attention;
  GatedUnits::Before gated;

  __device__ auto& of(const LinearUnits&) { return linear; }
  __device__ auto& of(const AttentionUnits&) { return attention; }
  __device__ auto& of(const GatedUnits&) { return gated; }
};

// Takes the rows of a phase; the weights of its first units are there then, too. Calls `come` as soon as
// results of earlier phases are there.
template <int kGroups, typename F>
__device__ void take_rows(const FewRows& args, const StageRun& norm, const ProgramBlock<kGroups>& block,
                          const F& come) {
  if (args.input == Input::kNormed) {
    const RowShare share(args);
    await_rows();
    come();
    hold_normed_rows(args, block, norm.first, share);
    if (threadIdx.x < kWarp) norm.give_back(block.ring);
  } else {
    const PackedShare share(args, 0);
    await_rows();
    come();
    hold_packed_rows(args, block, share);
  }
}

// By a block that has units of the phase.
template <int kGroups>
__device__ void multiply(const ProgramPhase& phase, BlockPlan& plan, const ProgramBlock<kGroups>& block) {
  constexpr int kValues = ProgramBlock<kGroups>::kValues;
  static_assert(kUnitsTogether<kGroups> * kValues <= kMultiplyThreads);
  const FewRows& args = phase.rows;
  const int thread = static_cast<int>(threadIdx.x), units_of_block = plan.mine.count;
  // The thread's result in units that are stored together; all of a warp are of one unit.
  const int own = thread / kValues, row = thread % kValues / kTileOut, n = thread % kTileOut;
  StageRun weights = plan.weights;
#pragma unroll 1
  for (int first = 0; first < units_of_block; first += phase.units_together) {
    const int count = min(phase.units_together, units_of_block - first);
    if (first > 0) {
      weights = {weights.end(block.ring), count * phase.unit_stages()};
      plan.plan(phase, block.ring, first, weights.first, thread);
      weights.await(block.ring, thread, kMultiplyThreads);
      meet_warps();  // the last sums are read, too
    }
    Before before;
    if (own < count) {
      with_units(phase, [&](const auto& units) {
        before.of(units) = plan.unit(units, own).before(row, n, row < args.rows.count, block.known);
      });
    }
    const auto read_results = [&] {
      if (own < count) with_units(phase, [&](const auto& units) { units.read_results(before.of(units)); });
    };
    if (first == 0) {
      take_rows(args, plan.norm, block, read_results);
    } else {
      read_results();
    }
    bool again = false;
#pragma unroll 1
    do {
      const bool any = multiply_slice(phase, count, plan, block);
      if (args.posted && !again) {
        again = meet_warps_any(any);
        if (again) hold_packed_rows_again(args, block);
      } else {
        meet_warps();
        again = false;
      }
    } while (again);
    if (first + count < units_of_block && thread < kWarp) weights.give_back(block.ring);
    if (own < count) {
      const float scale = args.scales() ? block.scales[row] : 1.0f;
      with_units(phase, [&](const auto& units) {
        constexpr int kSlots = std::remove_cvref_t<decltype(units)>::kSlots;
        float sums[kSlots];
#pragma unroll
        for (int s = 0; s < kSlots; ++s)
          sums[s] = joined(block.partials[own * kSlots + s], row * kTileOut + n) * scale;
        units.store(n, sums, before.of(units));
      });
    }
  }
}

// ---- Attention, by a team: `thread` is of it

// `await_memory`: until `staged` is free. Both are called in this order.
template <int kSteps, typename AwaitMemory, typename AwaitInputs>
__device__ void attend_phase(const ProgramPhase& phase, int thread, TeamMemory<kSteps, 1>& team,
                             std::byte* staged, const AwaitMemory& await_memory,
                             const AwaitInputs& await_inputs) {
  const auto& args = phase.as<BF16Attention>();
  const int heads = args.cache.heads;
  const BlockUnits mine(phase);
#pragma unroll 1
  for (int i = 0; i < mine.count; ++i) {
    const int index = mine.at(i);
    if (i > 0) meet_team();
    attend(
        args, index % heads, static_cast<unsigned>(index / heads), thread, team, staged, [] { meet_team(); },
        [&] {
          const bool replaces_none = args.knows_writers && args.replaces_none();
          if (i == 0) await_memory();
          return replaces_none;
        },
        [&] {
          if (i == 0) await_inputs();
        });
  }
}

}  // namespace volley::cuda
