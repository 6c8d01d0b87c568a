#pragma once

// What blocks that sample a row read, share and write.

#include "core/backend/cuda/even_cut.cuh"
#include "core/backend/cuda/team.cuh"
#include "core/backend/operations.h"

namespace volley::cuda::sampling {

constexpr int kThreads = 512;  // of a block

__device__ inline float excluded() {
  return -INFINITY;
}

struct Candidate {
  float value;
  int32_t id;
};
// Larger values first, then lower ids; a negative id is nobody.
__device__ inline bool precedes(Candidate a, Candidate b) {
  if (b.id < 0) return a.id >= 0;
  return a.id >= 0 && (a.value > b.value || (a.value == b.value && a.id < b.id));
}
__device__ inline Candidate joined(Candidate a, Candidate b) {
  return precedes(b, a) ? b : a;
}
__device__ inline Candidate nobody() {
  return {excluded(), -1};
}

// Sums are integers, so that no order of additions shows: not which block has what, nor how many there are.
constexpr float kUnits = 0x1p40f;  // of 1
struct Sums {
  unsigned long long weight;  // exp(logit - largest)
  long long moment;           // that times logit - largest
};
__device__ inline Sums joined(const Sums& a, const Sums& b) {
  return {a.weight + b.weight, a.moment + b.moment};
}

struct Inputs {
  const float* logits;
  const SampleRow* rows;
  const int32_t* path;
  int vocab;
  int share;       // ids of a block, a multiple of 4
  float* scratch;  // [m, blocks, share], or nullptr: shared memory holds a share
};

struct Outputs {
  int32_t* tokens;
  float* probability;
  float* entropy;
  float* distribution;
  int32_t* top_tokens;
  float* top_probability;
  int top;
};

template <int kBlocks>
struct Shared {
  typename Team<kBlocks, kThreads>::Memory team;
  CutMemory<kBlocks> cut;
  EvenCutMemory<kBlocks, kThreads> even;
  SampleRow row;
  int ties[kThreads / kWarp];
  int kept;
};

// Four logits of neighbouring ids; places behind the vocabulary are excluded.
__device__ inline float4 logits_at(const float* row, int id, int vocab) {
  if (id + 4 <= vocab && reinterpret_cast<uintptr_t>(row + id) % sizeof(float4) == 0) {
    return *reinterpret_cast<const float4*>(row + id);
  }
  const auto at = [&](int i) { return i < vocab ? row[i] : excluded(); };
  return {at(id), at(id + 1), at(id + 2), at(id + 3)};
}

// f(i) for this thread's part of begin .. end. Not unrolled: most rows take one turn, and code is long to
// fetch.
template <typename F>
__device__ void strided(int begin, int end, F f) {
#pragma unroll 1
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) f(i);
}

}  // namespace volley::cuda::sampling
