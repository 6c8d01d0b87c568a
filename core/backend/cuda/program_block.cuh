#pragma once

// What the warps of a program's block share, and where blocks meet.

#include "core/backend/cuda/program_phases.cuh"

namespace volley::cuda {

// By the multiplying warps of a block.
__device__ inline void meet_warps() {
  asm volatile("bar.sync 1, %0;" ::"n"(kMultiplyThreads) : "memory");
}
// The same, and whether any thread says so.
__device__ inline bool meet_warps_any(bool says) {
  int any;
  asm volatile(
      "{ .reg .pred says, any; setp.ne.s32 says, %1, 0; bar.red.or.pred any, 1, %2, says; "
      "selp.s32 %0, 1, 0, any; }"
      : "=r"(any)
      : "r"(static_cast<int>(says)), "n"(kMultiplyThreads)
      : "memory");
  return any != 0;
}
// By the multiplying warps, the one that plans and the one that meets other blocks: at the end of a phase.
inline constexpr int kPhaseThreads = kMultiplyThreads + 2 * kWarp;
__device__ inline void end_phase() {
  asm volatile("bar.sync 3, %0;" ::"n"(kPhaseThreads) : "memory");
}
// The multiplying warps meet where rows are there, with the norm's weights: each of the two warps says one.
__device__ inline void announce_rows() {
  asm volatile("bar.arrive 4, %0;" ::"n"(kPhaseThreads) : "memory");
}
__device__ inline void await_rows() {
  asm volatile("bar.sync 4, %0;" ::"n"(kPhaseThreads) : "memory");
}
// And where the weights of the first units are there, which the one that plans says.
__device__ inline void announce_weights() {
  asm volatile("bar.arrive 5, %0;" ::"n"(kMultiplyThreads + kWarp) : "memory");
}
__device__ inline void await_weights() {
  asm volatile("bar.sync 5, %0;" ::"n"(kMultiplyThreads + kWarp) : "memory");
}
// Between the two warps: the block has arrived where blocks meet.
__device__ inline void announce_arrival() {
  asm volatile("bar.arrive 6, %0;" ::"n"(2 * kWarp) : "memory");
}
__device__ inline void await_arrival() {
  asm volatile("bar.sync 6, %0;" ::"n"(2 * kWarp) : "memory");
}
// By a team.
__device__ inline void meet_team() {
  asm volatile("bar.sync 2, %0;" ::"n"(kTeamThreads) : "memory");
}

// Stages that follow each other.
struct StageRun {
  StagePlace first;
  int count;

  __device__ StagePlace end(const StageRing& ring) const { return first.moved(count, ring); }
  // By some threads, of which this is the `thread`-th: waits until its share is filled.
  __device__ void await(const StageRing& ring, int thread, int threads) const {
    for (int i = thread; i < count; i += threads) {
      const StagePlace place = first.moved(i, ring);
      ring.full[place.stage].wait(place.parity);
    }
  }
  // By a warp: lets them be filled again.
  __device__ void give_back(const StageRing& ring) const {
    for (int i = static_cast<int>(threadIdx.x) % kWarp; i < count; i += kWarp)
      ring.empty[first.moved(i, ring).stage].arrive();
  }
};

// What the multiplying warps of a block have to do in a phase, found by another warp beforehand: they are in
// everybody's way. They take units_together of the block's units at a time and plan all but the first of
// these times themselves.
struct BlockPlan {
  // By a warp, for a phase whose stages begin at `at`.
  __device__ void begin(const ProgramPhase& phase, const StageRing& ring, StagePlace at) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    BlockUnits own(phase);
    if (phase.kind == ProgramPhase::Kind::kAttention) own.count = 0;
    const StageRun norms{at, own.count > 0 ? phase.norm_stages() : 0};
    StageRun run{norms.end(ring), 0}, first_run = run;
    for (int first = 0; first < own.count; first += phase.units_together) {
      run = {run.end(ring), min(phase.units_together, own.count - first) * phase.unit_stages()};
      if (first == 0) first_run = run;
    }
    if (lane == 0) {
      mine = own;
      norm = norms;
      weights = first_run;
      last = run;
    }
    __syncwarp();
    if (own.count > 0) plan(phase, ring, 0, weights.first, lane);
  }
  // By threads, of which this is the `thread`-th: plans the units from `first` on, whose weights begin at
  // `at`.
  __device__ void plan(const ProgramPhase& phase, const StageRing& ring, int first, StagePlace at,
                       int thread) {
    const int count = min(phase.units_together, mine.count - first);
    if (thread < count * phase.slots)
      places[thread] = at.moved(thread * phase.panel_stages(), ring).stage * kStageSteps;
    if (thread >= count) return;
    with_units(phase, [&](const auto& all) {
      using Unit = UnitOf<decltype(all)>;
      static_assert(sizeof(Unit) <= sizeof(units[0]));
      new (units[thread]) Unit(all, mine.at(first + thread));
    });
  }
  // Of those that are planned.
  template <typename Units>
  __device__ const typename Units::Unit& unit(const Units&, int index) const {
    return *reinterpret_cast<const typename Units::Unit*>(units[index]);
  }

  BlockUnits mine;
  StageRun norm;                      // the norm's weights
  StageRun weights;                   // those of the first units
  StageRun last;                      // those of the last ones
  int places[2 * kUnitsTogether<1>];  // of panels: their first step, in steps of the ring
  alignas(8) std::byte units[kUnitsTogether<1>][sizeof(AttentionUnits::Unit)];
};

// How many phases the multiplying warps of a block are past. Its team looks where blocks meet only when no
// phase in front of its own is left for them: who looks there is in the way of those who arrive.
class Passed {
 public:
  __device__ explicit Passed(int& phases) : phases_(phases) {}
  // What the block did before is ordered before what the team does behind `await`.
  __device__ void set(int phases) const {
    asm volatile("st.release.cta.shared.u32 [%0], %1;" ::"r"(address()), "r"(phases) : "memory");
  }
  __device__ void await(int phases) const {
    int passed;
    do {
      asm volatile("ld.acquire.cta.shared.u32 %0, [%1];" : "=r"(passed) : "r"(address()) : "memory");
    } while (passed < phases);
  }

 private:
  __device__ unsigned address() const { return static_cast<unsigned>(__cvta_generic_to_shared(&phases_)); }

  int& phases_;
};

// Where all blocks meet behind a phase.
class GridMeeting {
 public:
  __device__ explicit GridMeeting(Program::Meeting* meeting) : meeting_(meeting) {}

  // By one thread of each block that has a part in a phase, when all that the block stores in it is stored.
  // Without a branch, for which the compiler would make a second copy of what is behind it.
  __device__ void arrive(Orders orders) const {
    asm volatile(
        "{ .reg .pred orders; setp.ne.s32 orders, %1, 0; @orders red.release.gpu.global.add.u32 [%0], 1; "
        "@!orders red.relaxed.gpu.global.add.u32 [%0], 1; }" ::"l"(&meeting_->arrived),
        "r"(static_cast<int>(orders))
        : "memory");
  }
  // By one thread, behind which those that meet it see what other blocks have stored before so many arrivals
  // that order it.
  __device__ void wait(unsigned arrivals) const {
    unsigned arrived;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                   : "=r"(arrived)
                   : "l"(&meeting_->arrived)
                   : "memory");
    } while (arrived < arrivals);
  }
  // The same where nothing is ordered.
  __device__ void wait_for_posts(unsigned arrivals) const {
    unsigned arrived;
    do {
      asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];"
                   : "=r"(arrived)
                   : "l"(&meeting_->arrived)
                   : "memory");
    } while (arrived < arrivals);
  }
  // By each thread that waits, behind its last wait: the last one leaves zeros.
  __device__ void leave(unsigned waiters) const {
    unsigned left;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
                 : "=r"(left)
                 : "l"(&meeting_->left)
                 : "memory");
    if (left != waiters * gridDim.x - 1) return;
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
  static_assert(sizeof(Partials) >= kGroups * 8 * most_norm_steps(kGroups * 8) * sizeof(float));

  StageRing ring;
  Partials& partials;
  uint4* rows;             // [step][group] blocks; or what attention brings
  float* scales;           // of the sums of rows that are normed
  const KnownRows& known;  // rows of all layers

  // Memory for the squares of a row's steps, until there are partial sums.
  __device__ float* squares_of(int row, int steps) const { return &partials[0][0][0] + row * steps; }
};

}  // namespace volley::cuda
