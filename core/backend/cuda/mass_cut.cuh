#pragma once

// Where the sorted values of a row reach a given mass, without sorting: digit by digit, by histograms that
// the blocks of a team count of their own values and add up. Masses are integers, so that no order of
// additions shows.

#include "core/backend/cuda/team.cuh"

namespace volley::cuda {

using Mass = unsigned long long;

// Keys in the order of values from the largest down; both zeros are one.
__device__ inline uint32_t descending_key(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7fffffffu;
}
__device__ inline float value_of_key(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key : ~key & 0x7fffffffu);
}

// Of the values in descending order, the first at which the mass of all so far reaches the limit.
struct Cut {
  bool exists = true;  // false: even all values do not
  float value = 0.0f;
  Mass above = 0;  // of the larger values
  Mass equal = 0;  // of all that equal it
  double limit = 0.0;
};

constexpr int kCutBins = 2048;
constexpr int kCutGroups = kCutBins / kWarp;

template <int kBlocks>
struct CutMemory {
  uint2 bins[kCutBins];             // low and high word of the mass of this block's values, by digit
  Mass masses[kCutBins / kBlocks];  // of all blocks' values, for this block's part of the digits
  Mass groups[kCutGroups];          // of all blocks' values, a warp's digits each
};

// 64-bit sums by 32-bit atomics, which shared memory has.
__device__ inline void add_mass(uint2& bin, Mass mass) {
  const auto low = static_cast<uint32_t>(mass);
  const uint32_t before = atomicAdd(&bin.x, low);
  const uint32_t high = static_cast<uint32_t>(mass >> 32) + (before + low < before ? 1u : 0u);
  if (high != 0) atomicAdd(&bin.y, high);
}

// `visit(f)` calls f(value) for every value of this block; `mass_of(value)` may be 0 for values that do not
// count, `limit_of(total)` is above 0, or small enough for the first value that counts.
template <int kBlocks, int kThreads, typename Visit, typename MassOf, typename LimitOf>
__device__ Cut find_cut(Team<kBlocks, kThreads>& team, CutMemory<kBlocks>& memory, Visit visit,
                        MassOf mass_of, LimitOf limit_of) {
  constexpr int kOwnBins = kCutBins / kBlocks, kOwnGroups = kCutGroups / kBlocks;
  static_assert(kCutGroups == 2 * kWarp && kCutGroups % kBlocks == 0);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, rank = team.rank();
  Cut cut;
  uint32_t key = 0, known = 0;  // bits of the key, and which of them are found
#pragma unroll 1
  for (int pass = 0; pass < 3; ++pass) {
    const int shift = max(21 - 11 * pass, 0);  // 11, 11 and 10 bits
    for (int bin = threadIdx.x; bin < kCutBins; bin += kThreads) memory.bins[bin] = {0, 0};
    __syncthreads();
    visit([&](float value) {
      const uint32_t candidate = descending_key(value);
      if (((candidate ^ key) & known) != 0) return;
      if (const Mass mass = mass_of(value); mass != 0) {
        add_mass(memory.bins[candidate >> shift & (kCutBins - 1)], mass);
      }
    });
    team.sync();
    for (int group = warp; group < kOwnGroups; group += team.kWarps) {
      const int bin = group * kWarp + lane;
      uint2 parts[kBlocks];
#pragma unroll
      for (int r = 0; r < kBlocks; ++r) parts[r] = team.get(&memory.bins[rank * kOwnBins + bin], r);
      Mass mass = 0;
#pragma unroll
      for (const uint2& part : parts) mass += (Mass{part.y} << 32) + part.x;
      memory.masses[bin] = mass;
      mass = warp_sum(mass);
      if (lane < kBlocks) team.put(&memory.groups[rank * kOwnGroups + group], lane, mass);
    }
    team.sync();
    // Every warp finds the same: first the group of digits, two to a lane, then the digit.
    const Mass first = memory.groups[2 * lane], second = memory.groups[2 * lane + 1];
    Mass reached = cut.above + warp_prefix_sum(first + second);
    if (known == 0) {
      const Mass total = __shfl_sync(kAllLanes, reached, kWarp - 1);
      cut.limit = limit_of(total);
      if (total == 0 || static_cast<double>(total) < cut.limit) {
        cut.exists = false;
        return cut;
      }
    }
    const bool in_first = first != 0 && static_cast<double>(reached - second) >= cut.limit;
    const bool in_second = second != 0 && static_cast<double>(reached) >= cut.limit;
    int finder = __ffs(__ballot_sync(kAllLanes, in_first || in_second)) - 1;
    const int group = __shfl_sync(kAllLanes, 2 * lane + (in_first ? 0 : 1), finder);
    cut.above = __shfl_sync(kAllLanes, reached - second - (in_first ? first : 0), finder);
    cut.equal = team.get(&memory.masses[group % kOwnGroups * kWarp + lane], group / kOwnGroups);
    reached = cut.above + warp_prefix_sum(cut.equal);
    finder = __ffs(__ballot_sync(kAllLanes, cut.equal != 0 && static_cast<double>(reached) >= cut.limit)) - 1;
    cut.above = __shfl_sync(kAllLanes, reached - cut.equal, finder);
    cut.equal = __shfl_sync(kAllLanes, cut.equal, finder);
    key |= static_cast<uint32_t>(group * kWarp + finder) << shift;
    known = ~0u << shift;
  }
  cut.value = value_of_key(key);
  return cut;
}

}  // namespace volley::cuda
