#pragma once

// What the warps of a program's block share, and where blocks meet.

#include "core/backend/cuda/program_phases.cuh"

namespace volley::cuda {

// By the multiplying warps of a block.
__device__ inline void meet_warps() {
  asm volatile("bar.sync 1, %0;" ::"n"(kMultiplyThreads) : "memory");
}
// By a team.
__device__ inline void meet_team() {
  asm volatile("bar.sync 2, %0;" ::"n"(kTeamThreads) : "memory");
}
// How many phases the multiplying warps of a block are past. Its team looks where blocks meet only when no
// phase in front of its own is left for them: who looks there is in the way of those who arrive.
class Passed {
 public:
  __device__ explicit Passed(int& phases) : phases_(phases) {}
  __device__ void set(int phases) const { *static_cast<volatile int*>(&phases_) = phases; }
  __device__ void await(int phases) const {
    while (*static_cast<volatile int*>(&phases_) < phases) continue;
  }

 private:
  int& phases_;
};

// Where all blocks meet behind a phase.
class GridMeeting {
 public:
  __device__ explicit GridMeeting(Program::Meeting* meeting) : meeting_(meeting) {}

  // By one thread of each block that has a part in a phase, when all that the block stores in it is stored.
  __device__ void arrive() const {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(&meeting_->arrived) : "memory");
  }
  // By one thread, behind which those that meet it see what other blocks have stored before so many arrivals.
  __device__ void wait(unsigned arrivals) const {
    unsigned arrived;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                   : "=r"(arrived)
                   : "l"(&meeting_->arrived)
                   : "memory");
    } while (arrived < arrivals);
  }
  // By each thread that waits, behind its last wait: the last one leaves zeros.
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
  static_assert(sizeof(Partials) >= 8 * kMostNormSteps * sizeof(float));

  StageRing ring;
  StagePlace at;
  GridMeeting meeting;
  Partials& partials;
  uint4* rows;  // [step][group] blocks; or what attention brings

  // Memory for the sum of squares of each step of one of eight rows, until there are partial sums.
  __device__ float* squares_of(int row, int steps) const { return &partials[0][0][0] + row * steps; }
};

}  // namespace volley::cuda
