#pragma once

// What the warps of a program's block do with a phase. kMultiplyWarps warps wait for the phase before, take
// its rows, multiply and store. A team of warps more is for attention alone. What needs no rows is done
// before they are there: a result's place is found, weights are waited for.

#include "core/backend/cuda/program_rows.cuh"

namespace volley::cuda {

// ---- A product

// The panels that a warp multiplies together: its slice of those of every kUnitsAtOnce-th unit from `unit`
// on, of `count` that the block has in its ring.
struct WarpPanels {
  static constexpr int kMost = 4;

  template <int kGroups>
  __device__ WarpPanels(const ProgramPhase& phase, const ProgramBlock<kGroups>& block, int of, int units)
      : slots(phase.slots),
        unit(of),
        count(units > of ? ((units - 1 - of) / kUnitsAtOnce + 1) * phase.slots : 0) {
    const int slice = static_cast<int>(threadIdx.x) / kWarp % kSlices;
    begin = slice_begin(slice, phase.steps);
    end = slice_begin(slice + 1, phase.steps);
    const StageRing& ring = block.ring;
#pragma unroll
    for (int p = 0; p < kMost; ++p) {
      if (p >= count) break;
      const StagePlace panel =
          block.at.moved(unit_of(p) * phase.unit_stages() + slot_of(p) * phase.panel_stages(), ring);
      places[p] = panel.stage * kStageSteps + begin;
      if (places[p] >= ring.count * kStageSteps) places[p] -= ring.count * kStageSteps;
#pragma unroll 1
      for (int stage = begin / kStageSteps; stage * kStageSteps < end; ++stage) {
        const StagePlace place = panel.moved(stage, ring);
        ring.full[place.stage].wait(place.parity);
      }
    }
  }
  __device__ int unit_of(int panel) const {
    return unit + panel / slots * kUnitsAtOnce;
  }
  __device__ int slot_of(int panel) const {
    return panel % slots;
  }

  int slots;
  int unit;
  int count;
  int begin;  // of the slice, in steps
  int end;
  int places[kMost];  // of the slice's first step, in steps of the ring
};

// Leaves the sums of a warp's panels in the partials.
template <int kPanels, int kGroups>
__device__ void multiply_panels(const WarpPanels& mine, const ProgramBlock<kGroups>& block) {
  const auto* stages = reinterpret_cast<const uint4*>(block.ring.stages);
  const int ring_steps = block.ring.count * kStageSteps,
            slice = static_cast<int>(threadIdx.x) / kWarp % kSlices;
  int places[kPanels];
#pragma unroll
  for (int p = 0; p < kPanels; ++p) places[p] = mine.places[p];
  SliceSums<kGroups, kPanels> sums;
#pragma unroll 4
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
  for (int p = 0; p < kPanels; ++p)
    sums.put(p, block.partials[mine.unit_of(p) * mine.slots + mine.slot_of(p)][slice]);
}

template <int kGroups>
__device__ void multiply_slice(const WarpPanels& mine, const ProgramBlock<kGroups>& block) {
  if (mine.count == 1) return multiply_panels<1>(mine, block);
  if (mine.count == 2) return multiply_panels<2>(mine, block);
  if constexpr (kUnitsTogether < kGroups >> kUnitsAtOnce) {
    if (mine.count == 4) multiply_panels<4>(mine, block);
  }
}

// By the last warp.
template <int kGroups>
__device__ void give_back_stages(const ProgramBlock<kGroups>& block, StagePlace first, int count) {
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < count; i += kWarp)
    block.ring.empty[first.moved(i, block.ring).stage].arrive();
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

// By a block that has units of the phase.
template <int kGroups>
__device__ void multiply(const ProgramPhase& phase, ProgramBlock<kGroups>& block) {
  constexpr int kValues = ProgramBlock<kGroups>::kValues;
  static_assert(kUnitsTogether<kGroups> * kValues <= kMultiplyThreads);
  const BlockUnits mine(phase);
  const FewRows& args = phase.rows;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  const bool is_last_warp = warp == kMultiplyWarps - 1, norms = args.input == Input::kNormed;
  // The thread's result in units that are stored together; all of a warp are of one unit.
  const int own = thread / kValues, row = thread % kValues / kTileOut, n = thread % kTileOut;
#pragma unroll 1
  for (int first = 0; first < mine.count; first += phase.units_together) {
    const int count = min(phase.units_together, mine.count - first);
    Before before;
    if (own < count) {
      with_units(phase, [&](const auto& units) {
        before.of(units) =
            UnitOf<decltype(units)>(units, mine.at(first + own)).before(row, n, row < args.rows.count);
      });
    }
    const StagePlace norm = block.at;
    if (first == 0) block.at = norm.moved(phase.norm_stages(), block.ring);
    const WarpPanels panels(phase, block, warp / kSlices, count);
    const RowShare row_share(args.rows, 0);
    const PackedShare packed_share(args, 0);
    if (first == 0) {
#pragma unroll 1
      for (int i = 0; i < phase.norm_stages(); ++i) {
        const StagePlace place = norm.moved(i, block.ring);
        block.ring.full[place.stage].wait(place.parity);
      }
      if (thread == 0) block.meeting.wait(phase.awaited);
    }
    meet_warps();  // the rows are there, or the last sums are read
    if (own < count) with_units(phase, [&](const auto& units) { units.read_results(before.of(units)); });
    if (first == 0 && norms) {
      hold_normed_rows(args, block, norm, row_share);
      if (is_last_warp) give_back_stages(block, norm, phase.norm_stages());
    } else if (first == 0) {
      hold_packed_rows(args, block, packed_share);
    }
    multiply_slice(panels, block);
    meet_warps();
    const int used = count * phase.unit_stages();
    if (is_last_warp) give_back_stages(block, block.at, used);
    block.at = block.at.moved(used, block.ring);
    if (own < count) {
      with_units(phase, [&](const auto& units) {
        constexpr int kSlots = std::remove_cvref_t<decltype(units)>::kSlots;
        float sums[kSlots];
#pragma unroll
        for (int s = 0; s < kSlots; ++s)
          sums[s] = joined(block.partials[own * kSlots + s], row * kTileOut + n);
        units.store(n, sums, before.of(units));
      });
    }
  }
}

// ---- Attention, by a team: `thread` is of it

template <int kSteps, typename Await>
__device__ void attend_phase(const ProgramPhase& phase, int thread, TeamMemory<kSteps, 1>& team,
                             std::byte* staged, const Await& await_inputs) {
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
          if (i == 0) await_inputs();
        });
  }
}

}  // namespace volley::cuda
