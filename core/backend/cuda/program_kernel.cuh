#pragma once

// The kernel of a program: what each warp of a block does through all phases.

#include "core/backend/cuda/program_warps.cuh"

namespace volley::cuda {

// Threads of a block that wait for others.
inline constexpr unsigned kWaiters = 2;

struct ProgramArgs {
  const ProgramPhase* phases;
  int count;
  int attention;    // the first phase that is attention
  int asks;         // a phase that asks tables for rows as all do that ask; or -1
  int first_asked;  // of the step's rows
  int asked;        // how many there are
  int stages;
  int row_bytes;  // of shared memory behind the stages, for rows or what attention brings; then come turns
  Program::Meeting* meeting;
};

struct PhaseMemory {
  alignas(16) std::byte bytes[2][sizeof(ProgramPhase)];
  static_assert(sizeof(ProgramPhase) % 16 == 0);

  // Copies are ended by the caller.
  __device__ void bring(const ProgramArgs& args, int phase, int thread, int threads) {
    const auto* from = reinterpret_cast<const uint4*>(args.phases + phase);
    auto* to = reinterpret_cast<uint4*>(bytes[phase % 2]);
    for (int i = thread; i < static_cast<int>(sizeof(ProgramPhase) / 16); i += threads)
      copy_async(to + i, from + i);
  }
  __device__ const ProgramPhase& phase(int index) const {
    return *reinterpret_cast<const ProgramPhase*>(bytes[index % 2]);
  }
};

// A phase and the next one, as the multiplying warps read them.
struct PlannedPhases {
  PhaseMemory memory;
  BlockPlan plans[2];

  // By a warp.
  __device__ void plan(int phase, const StageRing& ring, StagePlace at) {
    plans[phase % 2].begin(memory.phase(phase), ring, at);
  }
};

// By a warp.
__device__ inline void bring_phases(const ProgramArgs& args, PhaseMemory& memory, const StageRing& ring) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  WeightBringer bringer(ring);
  for (int p = 0; p < args.count; ++p) {
    if (p + 1 < args.count) memory.bring(args, p + 1, lane, kWarp);
    end_copies();
    if (lane == 0) bringer.bring(memory.phase(p));
    await_copies<0>();
    __syncwarp();
  }
}

// By the warps that multiply.
template <int kGroups>
__device__ void multiply_phases(const ProgramArgs& args, PlannedPhases& phases,
                                const ProgramBlock<kGroups>& block) {
#pragma unroll 1
  for (int p = 0; p < args.count; ++p) {
    BlockPlan& plan = phases.plans[p % 2];
    if (plan.mine.count > 0) multiply(phases.memory.phase(p), plan, block);
    end_phase();
  }
}

// By a warp, for those that multiply: plans the next phase while they are at one, and waits for weights.
__device__ inline void plan_phases(const ProgramArgs& args, PlannedPhases& phases, const StageRing& ring) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll 1
  for (int p = 0; p < args.count; ++p) {
    const BlockPlan& plan = phases.plans[p % 2];
    const bool multiplies = plan.mine.count > 0, more = p + 1 < args.count;
    const StageRun last = plan.last;
    if (multiplies) {
      plan.norm.await(ring, lane, kWarp);
      __syncwarp();
      announce_rows();
    }
    if (more) phases.memory.bring(args, p + 1, lane, kWarp);
    end_copies();
    if (multiplies) {
      plan.weights.await(ring, lane, kWarp);
      __syncwarp();
      announce_weights();
    }
    await_copies<0>();
    __syncwarp();
    if (more) phases.plan(p + 1, ring, last.end(ring));
    end_phase();
    if (!multiplies) continue;
    // Not before, as the fence in front of the arrival takes longer while weights are on their way.
    await_arrival();
    last.give_back(ring);
  }
}

// By a warp: the block's share of what the phase forgets.
__device__ inline void forget(const ProgramPhase& phase, const BlockUnits& mine) {
  const int blocks = min(phase.units, static_cast<int>(gridDim.x)),
            lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll 1
  for (int64_t i = mine.first * kWarp + lane; i < phase.forgotten_count; i += blocks * kWarp)
    phase.forgotten[i] = make_uint4(kMissing, kMissing, kMissing, kMissing);
}

// By a warp, for those that multiply: they have the next phase to prepare while it tells other blocks of
// their results and waits for those of others.
__device__ inline void meet_phases(const ProgramArgs& args, const PlannedPhases& phases,
                                   const GridMeeting& meeting, const Passed& passed) {
  const bool is_first = threadIdx.x % kWarp == 0;
#pragma unroll 1
  for (int p = 0; p < args.count; ++p) {
    const bool multiplies = phases.plans[p % 2].mine.count > 0;
    if (multiplies) {
      const ProgramPhase& phase = phases.memory.phase(p);
      if (is_first) {
        if (phase.awaits == Orders::kNothing) {
          meeting.wait_for_posts(phase.awaited);
          __threadfence_block();  // the block's own team read what is now written anew
        } else {
          meeting.wait(phase.awaited);
        }
      }
      __syncwarp();
      announce_rows();
      forget(phase, phases.plans[p % 2].mine);
    }
    const Orders leaves = phases.memory.phase(p).leaves;
    end_phase();
    if (is_first) {
      if (multiplies && p + 1 < args.count) meeting.arrive(leaves);
      passed.set(p + 1);
    }
    __syncwarp();
    if (multiplies) announce_arrival();
  }
  if (is_first) meeting.leave(kWaiters);
}

// By a team.
template <int kSteps>
__device__ void attend_phases(const ProgramArgs& args, PhaseMemory& memory, TeamMemory<kSteps, 1>& team,
                              std::byte* staged, const GridMeeting& meeting, const Passed& passed) {
  const int thread = static_cast<int>(threadIdx.x) - kMultiplyThreads;
#pragma unroll 1
  for (int p = args.attention; p < args.count;) {
    memory.bring(args, p, thread, kTeamThreads);
    end_copies();
    await_copies<0>();
    meet_team();
    const ProgramPhase& phase = memory.phase(p);
    const int next = p + phase.attention;
    // Looked up before the team meets for the last time: others bring the next phase behind that.
    const bool arrives = p + 1 < args.count && BlockUnits(phase).count > 0;
    const Orders leaves = phase.leaves;
    attend_phase(
        phase, thread, team, staged,
        [&] {
          if (thread == 0) passed.await(p);
          meet_team();
        },
        [&] {
          if (thread == 0) meeting.wait(phase.awaited);
          meet_team();
        });
    meet_team();
    __threadfence_block();
    if (thread == 0 && arrives) meeting.arrive(leaves);
    p = next;
  }
  if (thread == 0) meeting.leave(kWaiters);
}

// kGroups: of eight rows. kSteps: of a head.
template <int kGroups, int kSteps>
__global__ void __launch_bounds__(kProgramThreads, 1) run_program(ProgramArgs args) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  alignas(1024) extern __shared__ std::byte memory[];
  __shared__ Barrier full[kMostStages], empty[kMostStages];
  __shared__ PlannedPhases multiplied;
  __shared__ PhaseMemory attended, brought;
  __shared__ TeamMemory<kSteps, 1> team;
  __shared__ typename ProgramBlock<kGroups>::Partials partials;
  __shared__ int phases_passed;
  __shared__ KnownRows known;
  __shared__ float scales[kGroups * 8];
  const auto thread = static_cast<int>(threadIdx.x);
  const int bringer = thread - kMultiplyThreads - kTeamThreads;
  const Passed passed(phases_passed);
  if (thread == 0) {
    passed.set(0);
    for (int s = 0; s < args.stages; ++s) {
      full[s].init(1);
      empty[s].init(1);
    }
    publish_barriers();
  }
  std::byte* const rows = memory + args.stages * kStageBytes;
  if (args.asks >= 0) {
    const auto& units = args.phases[args.asks].as<AttentionUnits>();
    const int pairs = units.pairs();
    auto* const turns = reinterpret_cast<Turn*>(rows + args.row_bytes);
    if (thread == 0) {
      known.first = args.first_asked;
      known.pairs = pairs;
      known.turns = turns;
    }
    if (thread < args.asked) known.places[thread] = units.place_of(args.first_asked + thread);
#pragma unroll 1
    for (int i = thread; i < args.asked * pairs; i += kProgramThreads)
      turns[i] = units.turn_of(args.first_asked + i / pairs, i % pairs);
  }
  if (thread < kMultiplyThreads) multiplied.memory.bring(args, 0, thread, kMultiplyThreads);
  if (bringer >= 0 && bringer < kWarp) brought.bring(args, 0, bringer, kWarp);
  end_copies();
  await_copies<0>();
  __syncthreads();
  const StageRing ring{full, empty, memory, args.stages};
  if (thread < kWarp) multiplied.plan(0, ring, {});
  __syncthreads();
  if (bringer >= 0) {
    give_registers<kBringing>();
    if (bringer < kWarp) {
      bring_phases(args, brought, ring);
    } else if (bringer < 2 * kWarp) {
      plan_phases(args, multiplied, ring);
    } else if (bringer < 3 * kWarp) {
      await_previous();
      meet_phases(args, multiplied, GridMeeting(args.meeting), passed);
    }
  } else {
    take_registers<kMultiplying>();
    await_previous();
    if (thread >= kMultiplyThreads) {
      attend_phases(args, attended, team, rows, GridMeeting(args.meeting), passed);
    } else {
      ProgramBlock<kGroups> block{.ring = ring,
                                  .partials = partials,
                                  .rows = reinterpret_cast<uint4*>(rows),
                                  .scales = scales,
                                  .known = known};
      multiply_phases(args, multiplied, block);
    }
  }
#endif
}

}  // namespace volley::cuda
