#pragma once

// The phases of a program as its blocks run them. The outputs of a product's phase are dealt to the blocks,
// unit by unit. One thread of a block brings the weights of its units, through all phases, to a ring of
// stages in shared memory; kMultiplyWarps warps wait for the phase before, take its rows, multiply and store.
// A team of warps more is for attention alone: what it needs of tables it has before its queries are there.

#include "core/backend/cuda/attention_teams.cuh"
#include "core/backend/cuda/few_rows.cuh"
#include "core/backend/cuda/program.h"
#include "core/backend/cuda/wgmma.cuh"

namespace volley::cuda {

inline constexpr int kMultiplyWarps = 8;
inline constexpr int kMultiplyThreads = kMultiplyWarps * kWarp;
inline constexpr int kProgramThreads = kMultiplyThreads + kTeamThreads + 4 * kWarp;
// Registers of the threads that bring weights, and of all others.
inline constexpr int kBringing = 40, kMultiplying = 152;
inline constexpr int kUnitsTogether = kMultiplyWarps / kSlices;  // of a block, at most
inline constexpr int kStageSteps = 8;                            // of a panel
inline constexpr int kStageBytes = kStageSteps * kBlockBytes;
inline constexpr int kNormSteps = kStageBytes / (kStep * 4);  // of a norm's weights
inline constexpr int kMostStages = 48;
#ifndef UNDERWAY
#define UNDERWAY 12
#endif
inline constexpr int kUnderWay = UNDERWAY;  // stages

__host__ __device__ constexpr int norm_stages_of(int steps) {
  return (steps + kNormSteps - 1) / kNormSteps;
}

struct Phase {
  enum class Kind : int { kAttentionInputs, kGated, kLinear, kAttention };
  static constexpr int kOperationBytes = 480;

  template <typename Operation>
  Phase(Kind phase_kind, const FewRows& few_rows, const Operation& of) : kind(phase_kind), rows(few_rows) {
    static_assert(sizeof(Operation) <= kOperationBytes && alignof(Operation) <= 16);
    static_assert(std::is_trivially_copyable_v<Operation>);
    new (operation) Operation(of);
  }
  template <typename Operation>
  __host__ __device__ const Operation& as() const {
    return *reinterpret_cast<const Operation*>(operation);
  }
  // Of a product. Stages of a unit's panels follow each other.
  __host__ __device__ int panel_stages() const { return (steps + kStageSteps - 1) / kStageSteps; }
  __host__ __device__ int unit_stages() const { return slots * panel_stages(); }
  // Of the norm's weights, which come before the first unit.
  __host__ __device__ int norm_stages() const {
    return rows.input == Input::kNormed ? norm_stages_of(steps) : 0;
  }

  Kind kind;
  int units = 0;           // of a product; or heads of row ranges
  int first_block = 0;     // whose is the first unit
  int index = 0;           // of the phase
  int attention = 0;       // how many phases on the next attention is
  int slots = 0;           // panels of a unit
  int steps = 0;           // of the inputs
  int units_together = 0;  // of a block
  FewRows rows;
  alignas(16) std::byte operation[kOperationBytes];
};

// Units of a block: every gridDim-th from `first`.
struct BlockUnits {
  __device__ explicit BlockUnits(const Phase& phase)
      : first(static_cast<int>(blockIdx.x) - phase.first_block) {
    const auto blocks = static_cast<int>(gridDim.x);
    if (first < 0) first += blocks;
    count = first < phase.units ? (phase.units - 1 - first) / blocks + 1 : 0;
  }
  __device__ int at(int i) const { return first + i * static_cast<int>(gridDim.x); }

  int first;
  int count;
};

#ifdef VOLLEY_TRACE
__device__ long long trace_times[16][132][8];
__device__ inline void trace(int phase, int at) {
  long long t;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
  if (threadIdx.x % kMultiplyThreads == 0 && phase < 16) trace_times[phase][blockIdx.x][at] = t;
}
#define TRACE(phase, at) trace(phase, at)
#else
#define TRACE(phase, at)
#endif

// ---- The ring

struct StageRing {
  Barrier* full;
  Barrier* empty;
  std::byte* stages;
  int count;

  __device__ uint4* stage(int index) const { return reinterpret_cast<uint4*>(stages + index * kStageBytes); }
};

struct StagePlace {
  int stage = 0;
  unsigned parity = 0;

  // At most once around.
  __device__ StagePlace moved(int by, const StageRing& ring) const {
    const int at = stage + by;
    return at < ring.count ? StagePlace{at, parity} : StagePlace{at - ring.count, parity ^ 1};
  }
};

// By one thread. `bytes`: of 16.
__device__ inline void copy_bytes(void* to, const void* from, unsigned bytes, Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(&barrier.state))
      : "memory");
}

// Calls f(units) with the units of a product.
template <typename F>
__device__ void with_units(const Phase& phase, const F& f) {
  switch (phase.kind) {
    case Phase::Kind::kAttentionInputs:
      return f(phase.as<AttentionUnits>());
    case Phase::Kind::kGated:
      return f(phase.as<GatedUnits>());
    case Phase::Kind::kLinear:
      return f(phase.as<LinearUnits>());
    case Phase::Kind::kAttention:
      return;
  }
}
template <typename Units>
using UnitOf = typename std::remove_cvref_t<Units>::Unit;

// Brings what a block needs of a product's weights, by one thread.
__device__ inline void bring_phase(const Phase& phase, const StageRing& ring, StagePlace& at, int& brought) {
  const auto bring = [&](const void* from, int bytes) {
    for (int done = 0; done < bytes; done += kStageBytes) {
      const auto part = static_cast<unsigned>(min(kStageBytes, bytes - done));
      ring.empty[at.stage].wait(at.parity ^ 1);
      // Not more under way than memory needs to be busy: what others ask for would wait behind it.
      if (kUnderWay > 0 && brought >= kUnderWay) {
        const StagePlace last = at.stage >= kUnderWay
                                    ? StagePlace{at.stage - kUnderWay, at.parity}
                                    : StagePlace{at.stage - kUnderWay + ring.count, at.parity ^ 1};
        ring.full[last.stage].wait(last.parity);
      }
      ++brought;
      ring.full[at.stage].arrive_and_announce(part);
      copy_bytes(ring.stage(at.stage), static_cast<const std::byte*>(from) + done, part, ring.full[at.stage]);
      at = at.moved(1, ring);
    }
  };
  const BlockUnits mine(phase);
  const bool norms = phase.norm_stages() > 0;
  if (phase.kind == Phase::Kind::kAttention || mine.count == 0) return;
#pragma unroll 1
  for (int i = norms ? -1 : 0; i < mine.count; ++i) {
    const void* parts[2] = {phase.rows.norm.weight, nullptr};
    if (i >= 0) {
      with_units(phase, [&](const auto& units) {
        const UnitOf<decltype(units)> unit(units, mine.at(i));
#pragma unroll
        for (int s = 0; s < std::remove_cvref_t<decltype(units)>::kSlots; ++s)
          parts[s] = unit.weight(s, phase.steps);
      });
    }
#pragma unroll 1
    for (int s = 0; s < (i >= 0 ? phase.slots : 1); ++s)
      bring(s == 0 ? parts[0] : parts[1], phase.steps * (i >= 0 ? kBlockBytes : kStep * 4));
  }
}

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
  using Partials = float[kUnitsTogether * 2][kSlices][kValues];

  StageRing ring;
  StagePlace at;
  GridMeeting meeting;
  Partials& partials;
  uint4* rows;  // [step][group] blocks; or what attention brings
};

// ---- A product

// Adds a slice of a unit whose stages begin at `at`.
template <int kGroups, int kSlots>
__device__ void add_slice(const ProgramBlock<kGroups>& block, const Phase& phase, StagePlace at, int slice,
                          SliceSums<kGroups, kSlots>& sums) {
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
__device__ void multiply_slice(const Phase& phase, const ProgramBlock<kGroups>& block, int unit, int slice) {
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
__device__ void multiply(const Phase& phase, ProgramBlock<kGroups>& block) {
  const auto await_inputs = [&] {
    if (threadIdx.x == 0) block.meeting.wait(phase.index);
    meet_warps();
  };
  constexpr int kValues = ProgramBlock<kGroups>::kValues;
  static_assert(kUnitsTogether * kValues <= kMultiplyThreads);
  const BlockUnits mine(phase);
  if (mine.count == 0) return await_inputs();
  const FewRows& args = phase.rows;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int unit = warp / kSlices, slice = warp % kSlices;
  // The thread's result in units that are multiplied together; all of a warp are of one unit.
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
    TRACE(phase.index, 1);
    if (first == 0) {
      await_inputs();
    } else {
      meet_warps();  // the last sums are read
    }
    TRACE(phase.index, 2);
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
    TRACE(phase.index, 3);
    if (unit < count) {
      if (phase.slots == 1) {
        multiply_slice<1>(phase, block, unit, slice);
      } else {
        multiply_slice<2>(phase, block, unit, slice);
      }
    }
    TRACE(phase.index, 4);
    meet_warps();
    TRACE(phase.index, 5);
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
__device__ void attend_phase(const Phase& phase, int thread, TeamMemory<kSteps, 1>& team, std::byte* staged,
                             const GridMeeting& meeting) {
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
    TRACE(phase.index, 0);
    attend(
        args, index % heads, static_cast<unsigned>(index / heads), thread, team, staged, [] { meet_team(); },
        [&] {
          TRACE(phase.index, 1);
          if (i == 0) await_inputs();
          TRACE(phase.index, 2);
        });
    TRACE(phase.index, 6);
  }
}

}  // namespace volley::cuda
