#pragma once

// The phases of a program, and how their weights get to its blocks. The outputs of a product's phase are
// dealt to the blocks, unit by unit. One thread of a block brings the weights of its units, through all
// phases, to a ring of stages in shared memory.

#include <new>
#include <type_traits>

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
inline constexpr int kPanelsAtOnce = kMultiplyWarps / kSlices;  // of a block
// Units of a block that are stored together, at most: a thread for each result.
template <int kGroups>
inline constexpr int kUnitsTogether = kMultiplyThreads / (kGroups * 8 * kTileOut);
inline constexpr int kStageSteps = 8;  // of a panel
inline constexpr int kStageBytes = kStageSteps * kBlockBytes;
inline constexpr int kNormSteps = kStageBytes / (kStep * 4);  // of a norm's weights
inline constexpr int kMostStages = 48;
// Of so many rows that are normed.
__host__ __device__ constexpr int most_norm_steps(int64_t rows) {
  return rows > 8 ? 128 : 256;
}
// Stages that a block asks memory for at once: more would only be in the way of what others ask for.
inline constexpr int kUnderWay = 10;

__host__ __device__ constexpr int norm_stages_of(int steps) {
  return (steps + kNormSteps - 1) / kNormSteps;
}

// What a meeting orders. Results that are posted need none: it only tells when they may well be there, so
// that nobody looks for them in vain.
enum class Orders : int8_t { kNothing, kMemory };

struct ProgramPhase {
  enum class Kind : int { kAttentionInputs, kGated, kLinear, kAttention };
  static constexpr int kOperationBytes = 480;

  template <typename Operation>
  ProgramPhase(Kind phase_kind, const FewRows& few_rows, const Operation& of)
      : kind(phase_kind), rows(few_rows) {
    static_assert(sizeof(Operation) <= kOperationBytes && alignof(Operation) <= 16);
    static_assert(std::is_trivially_copyable_v<Operation>);
    new (operation) Operation(of);
  }
  template <typename Operation>
  __host__ __device__ const Operation& as() const {
    return *reinterpret_cast<const Operation*>(operation);
  }
  template <typename Operation>
  Operation& as() {
    return *reinterpret_cast<Operation*>(operation);
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
  unsigned awaited = 0;    // arrivals where blocks meet, before its inputs are there
  int attention = 0;       // how many phases on the next attention is
  int slots = 0;           // panels of a unit
  int steps = 0;           // of the inputs
  int units_together = 0;  // of a block: that are stored
  // Where blocks meet in front of the phase, and behind it.
  Orders awaits = Orders::kMemory, leaves = Orders::kMemory;
  // Posted results that nobody reads any more, to be missing again: from .. to, in vectors.
  uint4* forgotten = nullptr;
  int64_t forgotten_count = 0;
  FewRows rows;
  alignas(16) std::byte operation[kOperationBytes];
};

// Units of a block: every gridDim-th from `first`.
struct BlockUnits {
  __device__ explicit BlockUnits(const ProgramPhase& phase)
      : first(static_cast<int>(blockIdx.x) - phase.first_block) {
    const auto blocks = static_cast<int>(gridDim.x);
    if (first < 0) first += blocks;
    count = 0;
    for (int unit = first; unit < phase.units; unit += blocks) ++count;  // few: quicker than a division
  }
  BlockUnits() = default;
  __device__ int at(int i) const { return first + i * static_cast<int>(gridDim.x); }

  int first;
  int count;
};

// ---- The ring

struct StageRing {
  Barrier* full;
  Barrier* empty;
  std::byte* stages;
  int count;

  __device__ uint4* stage(int index) const { return reinterpret_cast<uint4*>(stages + index * kStageBytes); }
};

struct StagePlace {
  int stage;
  unsigned parity;

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
__device__ void with_units(const ProgramPhase& phase, const F& f) {
  switch (phase.kind) {
    case ProgramPhase::Kind::kAttentionInputs:
      return f(phase.as<AttentionUnits>());
    case ProgramPhase::Kind::kGated:
      return f(phase.as<GatedUnits>());
    case ProgramPhase::Kind::kLinear:
      return f(phase.as<LinearUnits>());
    case ProgramPhase::Kind::kAttention:
      return;
  }
}
template <typename Units>
using UnitOf = typename std::remove_cvref_t<Units>::Unit;

// Brings what a block needs of products' weights, by one thread.
class WeightBringer {
 public:
  __device__ explicit WeightBringer(const StageRing& ring) : ring_(ring) {}

  __device__ void bring(const ProgramPhase& phase) {
    const BlockUnits mine(phase);
    if (phase.kind == ProgramPhase::Kind::kAttention || mine.count == 0) return;
    if (phase.norm_stages() > 0) bring(phase.rows.norm.weight, phase.steps * kStep * 4);
#pragma unroll 1
    for (int i = 0; i < mine.count; ++i) {
      const void* panels[2] = {};
      with_units(phase, [&](const auto& units) {
        const UnitOf<decltype(units)> unit(units, mine.at(i));
#pragma unroll
        for (int s = 0; s < std::remove_cvref_t<decltype(units)>::kSlots; ++s)
          panels[s] = unit.weight(s, phase.steps);
      });
#pragma unroll 1
      for (int s = 0; s < phase.slots; ++s) bring(s == 0 ? panels[0] : panels[1], phase.steps * kBlockBytes);
    }
  }

 private:
  __device__ void bring(const void* from, int bytes) {
#pragma unroll 1
    for (int done = 0; done < bytes; done += kStageBytes) {
      const auto part = static_cast<unsigned>(min(kStageBytes, bytes - done));
      ring_.empty[at_.stage].wait(at_.parity ^ 1);
      if (brought_ == kUnderWay) {
        const StagePlace first = at_.moved(ring_.count - kUnderWay, ring_);
        ring_.full[first.stage].wait(first.parity ^ 1);
      } else {
        ++brought_;
      }
      ring_.full[at_.stage].arrive_and_announce(part);
      copy_bytes(ring_.stage(at_.stage), static_cast<const std::byte*>(from) + done, part,
                 ring_.full[at_.stage]);
      at_ = at_.moved(1, ring_);
    }
  }

  const StageRing& ring_;
  StagePlace at_{};
  int brought_ = 0;  // stages, up to kUnderWay
};

}  // namespace volley::cuda
