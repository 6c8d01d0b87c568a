#pragma once

// find_cut() by bins of equal width between the least and the largest value: quicker than digits where few
// values share the bin of the cut, which is then found among these alone.

#include <type_traits>

#include "core/backend/cuda/mass_cut.cuh"

namespace volley::cuda {

// Of the values that count.
struct Spread {
  float largest;
  float least;
};
__device__ inline Spread joined(Spread a, Spread b) {
  return {fmaxf(a.largest, b.largest), fminf(a.least, b.least)};
}

// The bin of a value between `least` and `largest`: never above that of a smaller one.
class EvenBins {
 public:
  __device__ explicit EvenBins(Spread spread)
      : largest_(spread.largest), scale_(static_cast<float>(kCutBins) / (spread.largest - spread.least)) {}
  // What is no number, of a spread of nothing, becomes 0.
  __device__ int of(float value) const {
    return min(__float2int_rz((largest_ - value) * scale_), kCutBins - 1);
  }

 private:
  float largest_;
  float scale_;
};

template <int kBlocks, int kThreads>
struct EvenCutMemory {
  static constexpr int kMost = kThreads / kBlocks;  // candidates of a block

  Mass groups[kBlocks][kThreads];  // of each block's values, by bins of a thread
  Mass warps[kThreads / kWarp];
  Mass masses[kBlocks][kMost];  // of each block's values in the bin of the cut
  float values[kBlocks][kMost];
  int counts[kBlocks];
  int count;  // of this block
  int group;
  Cut cut;
};

__device__ inline void add_mass(uint32_t& bin, uint32_t mass) {
  atomicAdd(&bin, mass);
}
__device__ inline uint32_t mass_in(uint32_t bin) {
  return bin;
}
__device__ inline Mass mass_in(uint2 bin) {
  return (Mass{bin.y} << 32) + bin.x;
}

template <int kBlocks, int kThreads>
class EvenCutFinder {
 public:
  using Memory = EvenCutMemory<kBlocks, kThreads>;

  __device__ EvenCutFinder(Team<kBlocks, kThreads>& team, uint2 (&bins)[kCutBins], Memory& memory,
                           Spread spread)
      : team_(team), bins_(bins), memory_(memory), places_(spread) {}

  // As find_cut(), with masses of 32 bits or of Mass. False: the bin of the cut holds too many values.
  template <typename Visit, typename MassOf, typename LimitOf>
  __device__ bool find(Visit visit, MassOf mass_of, LimitOf limit_of, Cut& cut) const {
    using Sum = decltype(mass_of(0.0f));
    using Bin = std::conditional_t<sizeof(Sum) == 4, uint32_t, uint2>;
    Bin* const bins = reinterpret_cast<Bin*>(bins_);
    for (int bin = threadIdx.x; bin < kCutBins; bin += kThreads) bins[bin] = Bin{};
    if (threadIdx.x == 0) memory_.count = 0;
    __syncthreads();
    visit([&](float value) {
      if (const Sum mass = mass_of(value); mass != 0) add_mass(bins[places_.of(value)], mass);
    });
    __syncthreads();
    if (!find_group(bins, limit_of, cut)) {
      team_.sync();  // what the others sent is read
      return true;
    }
    const int chosen = find_bin(bins, cut);
    visit([&](float value) {
      if (places_.of(value) != chosen) return;
      if (const Sum mass = mass_of(value); mass != 0) send(value, mass);
    });
    __syncthreads();
    if (threadIdx.x < kBlocks) team_.put(&memory_.counts[team_.rank()], threadIdx.x, memory_.count);
    team_.sync();
    return choose(cut);
  }

 private:
  static constexpr int kBins = kCutBins / kThreads;  // of a thread
  static_assert(kWarp % kBins == 0);

  // Whether the mass in front of a value, and with it, says that the cut is there.
  __device__ static bool reaches(Mass above, Mass mass, double limit) {
    return mass != 0 && static_cast<double>(above + mass) >= limit &&
           (above == 0 || static_cast<double>(above) < limit);
  }

  // The bins of which thread hold the cut; leaves the mass above them. False: it does not exist.
  template <typename Bin, typename LimitOf>
  __device__ bool find_group(const Bin* bins, LimitOf limit_of, Cut& cut) const {
    using Sum = decltype(mass_in(Bin{}));
    const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
    Sum own = 0;
#pragma unroll
    for (int i = 0; i < kBins; ++i) own += mass_in(bins[thread * kBins + i]);
#pragma unroll
    for (int r = 0; r < kBlocks; ++r)
      team_.put(reinterpret_cast<Sum*>(memory_.groups[team_.rank()]) + thread, r, own);
    team_.sync();
    own = 0;
#pragma unroll
    for (int r = 0; r < kBlocks; ++r) own += reinterpret_cast<const Sum*>(memory_.groups[r])[thread];
    const Sum in_warp = warp_prefix_sum(own);
    if (lane == kWarp - 1) memory_.warps[warp] = in_warp;
    __syncthreads();
    Mass above = in_warp - own, total = 0;
#pragma unroll
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w < warp) above += memory_.warps[w];
      total += memory_.warps[w];
    }
    cut.limit = limit_of(total);
    cut.exists = total != 0 && static_cast<double>(total) >= cut.limit;
    if (!cut.exists) return false;
    if (reaches(above, own, cut.limit)) {
      memory_.group = thread;
      memory_.cut.above = above;
    }
    __syncthreads();
    return true;
  }

  // By every warp.
  template <typename Bin>
  __device__ int find_bin(Bin* bins, Cut& cut) const {
    constexpr int kAtOnce = kWarp / kBins;  // blocks
    const int lane = threadIdx.x % kWarp, group = memory_.group;
    const Mass above = memory_.cut.above;
    decltype(mass_in(Bin{})) mass = 0;
#pragma unroll
    for (int r = lane / kBins; r < kBlocks; r += kAtOnce)
      mass += mass_in(team_.get(&bins[group * kBins + lane % kBins], r));
#pragma unroll
    for (int step = kBins; step < kWarp; step *= 2) mass += __shfl_xor_sync(kAllLanes, mass, step);
    if (lane >= kBins) mass = 0;
    const Mass before = above + warp_prefix_sum(mass) - mass;
    const int finder = __ffs(__ballot_sync(kAllLanes, reaches(before, mass, cut.limit))) - 1;
    cut.above = __shfl_sync(kAllLanes, before, finder);
    return group * kBins + finder;
  }

  __device__ void send(float value, Mass mass) const {
    const int place = atomicAdd(&memory_.count, 1);
    if (place >= Memory::kMost) return;
#pragma unroll
    for (int r = 0; r < kBlocks; ++r) {
      team_.put(&memory_.values[team_.rank()][place], r, value);
      team_.put(&memory_.masses[team_.rank()][place], r, mass);
    }
  }

  // A thread for each candidate.
  __device__ bool choose(Cut& cut) const {
    int most = 0;
#pragma unroll
    for (int r = 0; r < kBlocks; ++r) most = max(most, memory_.counts[r]);
    if (most > Memory::kMost) return false;
    const int block = threadIdx.x / Memory::kMost, place = threadIdx.x % Memory::kMost;
    if (place < memory_.counts[block]) {
      const float value = memory_.values[block][place];
      Mass above = cut.above, equal = 0;
      bool first = true;
      for (int r = 0; r < kBlocks; ++r) {
        for (int i = 0; i < memory_.counts[r]; ++i) {
          const float other = memory_.values[r][i];
          if (other > value) above += memory_.masses[r][i];
          if (other != value) continue;
          equal += memory_.masses[r][i];
          if (r * Memory::kMost + i < static_cast<int>(threadIdx.x)) first = false;
        }
      }
      if (first && reaches(above, equal, cut.limit))
        memory_.cut = {.exists = true, .value = value, .above = above, .equal = equal, .limit = cut.limit};
    }
    __syncthreads();
    cut = memory_.cut;
    return true;
  }

  Team<kBlocks, kThreads>& team_;
  uint2 (&bins_)[kCutBins];
  Memory& memory_;
  EvenBins places_;
};

}  // namespace volley::cuda
