#pragma once

// What the warps of a program's block do with a phase. kMultiplyWarps warps wait for the phase before, take
// its rows, multiply and store. A team of warps more is for attention alone: what it needs of tables it has
// before its queries are there.

#include "core/backend/cuda/program_phases.cuh"

namespace volley::cuda {

// ---- What the multiplying warps of a block share

// By all of them.
__device__ inline void meet_warps() {
  asm volatile("bar.sync 1, %0;" ::"n"(kMultiplyThreads) : "memory");
}
__device__ inline void meet_team() {
  asm volatile("bar.sync 2, %0;" ::"n"(kTeamThreads) : "memory");
}

// Where all blocks meet behind a phase.
class GridMeeting {
 public:
  __device__ explicit GridMeeting(Program::Meeting* meeting) : meeting_(meeting) {}

  // By one thread of each block, when all that the block stores in a phase is stored.
  __device__ void arrive() const {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(&meeting_->arrived) : "memory");
  }
  // By one thread, behind which those that meet it see what other blocks have stored.
  __device__ void wait(int phases) const {
    const unsigned awaited = static_cast<unsigned>(phases) * gridDim.x;
    unsigned arrived;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                   : "=r"(arrived)
                   : "l"(&meeting_->arrived)
                   : "memory");
    } while (arrived < awaited);
  }
  // By each thread that has waited, behind its last wait: the last one leaves zeros.
  __device__ void leave(unsigned waiters) const {
    if (atomicAdd(&meeting_->left, 1) != waiters * gridDim.x - 1) return;
    meeting_->arrived = 0;
    meeting_->left = 0;
  }

 private:
  Program::Meeting* meeting_;
};

template <int kGroups>
struct ProgramBlock {
  static constexpr int kValues = FewTiles<kGroups>::kValues;
  using Partials = float[kUnitsTogether<kGroups> * 2][kSlices][kValues];

  StageRing ring;
  StagePlace at;
  GridMeeting meeting;
  Partials& partials;
  uint4* rows;  // [step][group] blocks; or what attention brings
};

// ---- A product

// Adds a slice of a unit whose stages begin at `at`.
template <int kGroups, int kSlots>
__device__ void add_slice(const ProgramBlock<kGroups>& block, const ProgramPhase& phase, StagePlace at,
                          int slice, SliceSums<kGroups, kSlots>& sums) {
  const StageRing& ring = block.ring;
  const int begin = slice_begin(slice, phase.steps), end = slice_begin(slice + 1, phase.steps);
  const int ring_steps = ring.count * kStageSteps;
  int places[kSlots];  // of the next step, in steps of the ring
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const StagePlace panel = at.moved(s * phase.panel_stages(), ring);
    places[s] = panel.stage * kStageSteps + begin;
    if (places[s] >= ring_steps) places[s] -= ring_steps;
#pragma unroll 1
    for (int stage = begin / kStageSteps; stage * kStageSteps < end; ++stage) {
      const StagePlace place = panel.moved(stage, ring);
      ring.full[place.stage].wait(place.parity);
    }
  }
  const auto* stages = reinterpret_cast<const uint4*>(ring.stages);
#pragma unroll 4
  for (int step = begin; step < end; ++step) {
    const uint4* panels[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      panels[s] = stages + places[s] * kWarp;
      if (++places[s] == ring_steps) places[s] = 0;
    }
    sums.add(panels, block.rows + step * kGroups * kWarp);
  }
}

// Rounds normed rows to shared memory, a warp a row; the warps meet behind it. The norm's weights are at
// block.at. Four lanes hold a step of the row, a warp eight of them.
template <int kGroups>
__device__ void hold_normed_rows(const FewRows& args, const ProgramBlock<kGroups>& block) {
  constexpr int kWarpSteps = kWarp / 4;
  constexpr int kHeld = 6;  // times so many steps; the rest is read twice
  const InputRows& rows = args.rows;
  const int steps = rows.steps(), lane = static_cast<int>(threadIdx.x) % kWarp, own = lane / 4;
#pragma unroll 1
  for (int row = static_cast<int>(threadIdx.x) / kWarp; row < kGroups * 8; row += kMultiplyWarps) {
    uint4* const to = block.rows + row / 8 * kWarp + block_place(row % 8 * 4 + lane % 4);
    if (row >= rows.count) {
      for (int step = own; step < steps; step += kWarpSteps) to[step * kGroups * kWarp] = uint4{};
      continue;
    }
    LaneInputs held[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (i * kWarpSteps + own < steps) held[i] = rows.load_aligned(row, i * kWarpSteps + own, lane);
    }
    StepSquares sum;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (i * kWarpSteps < steps) sum.add(i * kWarpSteps + own < steps ? squares(held[i]) : 0.0f);
    }
#pragma unroll 1
    for (int first = kHeld * kWarpSteps; first < steps; first += kWarpSteps)
      sum.add(first + own < steps ? squares(rows.load_aligned(row, first + own, lane)) : 0.0f);
    const float scale = rms_scale(sum.total(), rows, args.norm.eps);
    const auto put = [&](int step, const LaneInputs& inputs) {
      const StagePlace place = block.at.moved(step / kNormSteps, block.ring);
      const auto* from = reinterpret_cast<const float4*>(block.ring.stage(place.stage)) +
                         step % kNormSteps * 8 + lane % 4 * 2;
      to[step * kGroups * kWarp] = rounded(normed(inputs, scale, {from[0], from[1]}));
    };
#pragma unroll 1
    for (int i = 0; i < norm_stages_of(steps); ++i) {
      const StagePlace place = block.at.moved(i, block.ring);
      block.ring.full[place.stage].wait(place.parity);
    }
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (i * kWarpSteps + own < steps) put(i * kWarpSteps + own, held[i]);
    }
#pragma unroll 1
    for (int step = kHeld * kWarpSteps + own; step < steps; step += kWarpSteps)
      put(step, rows.load_aligned(row, step, lane));
  }
  meet_warps();
}

template <int kGroups>
__device__ void hold_packed_rows(const PackedRows& packed, const ProgramBlock<kGroups>& block) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < packed.steps * kGroups; i += kMultiplyWarps)
    copy_async(block.rows + i * kWarp + lane, packed.part(i % kGroups, i / kGroups) + lane);
  end_copies();
  await_copies<0>();
  meet_warps();
}

// Sums of a warp's slice, left in the partials.
template <int kSlots, int kGroups>
__device__ void multiply_slice(const ProgramPhase& phase, const ProgramBlock<kGroups>& block, int unit,
                               int slice) {
  SliceSums<kGroups, kSlots> sums;
  add_slice(block, phase, block.at.moved(unit * phase.unit_stages(), block.ring), slice, sums);
#pragma unroll
  for (int s = 0; s < kSlots; ++s) sums.put(s, block.partials[unit * kSlots + s][slice]);
}

// What units read early.
struct Early {
  LinearUnits::Before linear;
  AttentionUnits::Before attention;
  GatedUnits::Before gated;

  __device__ auto& of(const LinearUnits&) { return linear; }
  __device__ auto& of(const AttentionUnits&) { return attention; }
  __device__ auto& of(const GatedUnits&) { return gated; }
};

template <int kGroups>
__device__ void multiply(const ProgramPhase& phase, ProgramBlock<kGroups>& block) {
  const auto await_inputs = [&] {
    if (threadIdx.x == 0) block.meeting.wait(phase.index);
    meet_warps();
  };
  constexpr int kValues = ProgramBlock<kGroups>::kValues;
  static_assert(kUnitsTogether<kGroups> * kValues <= kMultiplyThreads);
  const BlockUnits mine(phase);
  if (mine.count == 0) return await_inputs();
  const FewRows& args = phase.rows;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int unit = warp / kSlices, slice = warp % kSlices;
  // The thread's result in units that are stored together; all of a warp are of one unit.
  const int own = thread / kValues, row = thread % kValues / kTileOut, n = thread % kTileOut;
  Early early{};
#pragma unroll 1
  for (int first = 0; first < mine.count; first += phase.units_together) {
    const int count = min(phase.units_together, mine.count - first);
    bool exists = false;
    if (own < count) {
      with_units(phase, [&](const auto& units) {
        exists = row < units.rows(args.rows.count, kGroups * 8);
        if (exists) UnitOf<decltype(units)>(units, mine.at(first + own)).read_tables(row, n, early.of(units));
      });
    }
    if (first == 0) {
      await_inputs();
    } else {
      meet_warps();  // the last sums are read
    }
    if (own < count && exists) {
      with_units(phase, [&](const auto& units) {
        UnitOf<decltype(units)>(units, mine.at(first + own)).read_results(row, n, early.of(units));
      });
    }
    int used = count * phase.unit_stages();
    if (first == 0 && args.input == Input::kNormed) {
      hold_normed_rows(args, block);
      if (warp == kMultiplyWarps - 1 && lane < phase.norm_stages())
        block.ring.empty[block.at.moved(lane, block.ring).stage].arrive();
      block.at = block.at.moved(phase.norm_stages(), block.ring);
    } else if (first == 0) {
      hold_packed_rows(args.packed, block);
    }
#pragma unroll 1
    for (int u = unit; u < count; u += kUnitsAtOnce) {
      if (phase.slots == 1) {
        multiply_slice<1>(phase, block, u, slice);
      } else {
        multiply_slice<2>(phase, block, u, slice);
      }
    }
    meet_warps();
    if (warp == kMultiplyWarps - 1) {
      for (int i = lane; i < used; i += kWarp) block.ring.empty[block.at.moved(i, block.ring).stage].arrive();
    }
    block.at = block.at.moved(used, block.ring);
    if (own < count) {
      with_units(phase, [&](const auto& units) {
        constexpr int kSlots = std::remove_cvref_t<decltype(units)>::kSlots;
        float sums[kSlots];
#pragma unroll
        for (int s = 0; s < kSlots; ++s)
          sums[s] = joined(block.partials[own * kSlots + s], row * kTileOut + n);
        UnitOf<decltype(units)>(units, mine.at(first + own)).store(row, n, sums, early.of(units), exists);
      });
    }
  }
}

// ---- Attention, by a team: `thread` is of it

template <int kSteps>
__device__ void attend_phase(const ProgramPhase& phase, int thread, TeamMemory<kSteps, 1>& team,
                             std::byte* staged, const GridMeeting& meeting) {
  const auto& args = phase.as<BF16Attention>();
  const int heads = args.cache.heads;
  const BlockUnits mine(phase);
  const auto await_inputs = [&] {
    if (thread == 0) meeting.wait(phase.index);
    meet_team();
  };
  if (mine.count == 0) return await_inputs();
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
