#pragma once

// Blocks that work on one row together: a cluster whose blocks reach each other's shared memory, or a single
// block. Joins run in one order of blocks and warps, whatever else the device does.

#include <cstdint>
#include <cstring>

#include "core/backend/cuda/device_math.cuh"

namespace volley::cuda {

// Clusters came with devices of 9.0; code for older ones is compiled, never launched.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define VOLLEY_CLUSTERS 1
#else
#define VOLLEY_CLUSTERS 0
#endif

// A value of whole 32-bit words from the lane whose number differs in the bits of `step`.
template <typename T>
__device__ T shuffled(const T& value, int step) {
  static_assert(sizeof(T) % 4 == 0);
  uint32_t words[sizeof(T) / 4];
  memcpy(words, &value, sizeof(T));
#pragma unroll
  for (uint32_t& word : words) word = __shfl_xor_sync(kAllLanes, word, step);
  T result;
  memcpy(&result, words, sizeof(T));
  return result;
}

// `T joined(T, T)` must not care for the order of its two sides; then all lanes get the same bits. Not
// unrolled for large values: code that runs once is long to fetch.
template <typename T>
__device__ T warp_joined(T value) {
#pragma unroll(sizeof(T) <= 8 ? 5 : 1)
  for (int step = kWarp / 2; step > 0; step /= 2) value = joined(value, shuffled(value, step));
  return value;
}

// Sum over this lane and those below.
template <typename T>
__device__ T warp_prefix_sum(T value) {
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const T below = __shfl_up_sync(kAllLanes, value, step);
    if (static_cast<int>(threadIdx.x % kWarp) >= step) value += below;
  }
  return value;
}

template <int kBlocks, int kThreads>
class Team {
 public:
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kPartials = kBlocks * kWarps;
  static constexpr int kMostBytes = 16;  // of a value that is joined
  struct Memory {
    alignas(kMostBytes) unsigned char partials[2][kPartials * kMostBytes];
  };

  // `memory` is shared memory, at the same place in every block. Between begin() and ready(), which all
  // threads call once, a block must not touch another's memory: it may not run yet.
  __device__ explicit Team(Memory& memory) : memory_(memory) {}
  __device__ void begin() const {
#if VOLLEY_CLUSTERS
    if constexpr (kBlocks > 1) asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
  }
  __device__ void ready() const {
#if VOLLEY_CLUSTERS
    if constexpr (kBlocks > 1) asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
  }

  // Of this block in its team; blocks of a team are neighbours in the grid.
  __device__ static int rank() {
    return static_cast<int>(blockIdx.x) % kBlocks;
  }
  // Writes to, and reads from, block `rank`, where `mine` lies here.
  template <typename T>
  __device__ static void put(T* mine, int rank, const T& value) {
#if VOLLEY_CLUSTERS
    if constexpr (kBlocks > 1) {
      uint32_t words[sizeof(T) / 4];
      memcpy(words, &value, sizeof(T));
      const uint32_t there = address_in(mine, rank);
#pragma unroll
      for (size_t i = 0; i < sizeof(T) / 4; ++i)
        asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(there + static_cast<uint32_t>(4 * i)),
                     "r"(words[i]));
      return;
    }
#endif
    *mine = value;
  }
  template <typename T>
  __device__ static T get(const T* mine, int rank) {
#if VOLLEY_CLUSTERS
    if constexpr (kBlocks > 1) {
      uint32_t words[sizeof(T) / 4];
      const uint32_t there = address_in(mine, rank);
#pragma unroll
      for (size_t i = 0; i < sizeof(T) / 4; ++i)
        asm volatile("ld.shared::cluster.u32 %0, [%1];"
                     : "=r"(words[i])
                     : "r"(there + static_cast<uint32_t>(4 * i)));
      T value;
      memcpy(&value, words, sizeof(T));
      return value;
    }
#endif
    return *mine;
  }
  // Waits for all threads of the team; what they wrote is seen. The last use of another block's memory must
  // be in front of a sync, because a block that has ended has none.
  __device__ void sync() const {
#if VOLLEY_CLUSTERS
    if constexpr (kBlocks > 1) {
      asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
      asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
      return;
    }
#endif
    __syncthreads();
  }

  // One value a warp, in the order of ranks and warps, to every block. They stay until the next but one call.
  template <typename T>
  __device__ const T* gathered(const T& value) {
    static_assert(sizeof(T) <= kMostBytes && alignof(T) <= kMostBytes);
    T* partials = reinterpret_cast<T*>(memory_.partials[turn_]);
    turn_ ^= 1;  // a block may be one call ahead of another, not two
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    if (lane < kBlocks) put(&partials[rank() * kWarps + warp], lane, value);
    sync();
    return partials;
  }

  // All threads' values joined, the same bits in every thread; joined(value, nothing) must be the value.
  template <typename T>
  __device__ T all_joined(T value, const T& nothing) {
    const T* partials = gathered(warp_joined(value));
    const int lane = threadIdx.x % kWarp;
    value = nothing;
#pragma unroll
    for (int i = 0; i < kPartials; i += kWarp) {
      if (i + lane < kPartials) value = joined(value, partials[i + lane]);
    }
    return warp_joined(value);
  }

 private:
#if VOLLEY_CLUSTERS
  // Volatile, so that addresses are made where they are needed, not kept.
  __device__ static uint32_t address_in(const void* mine, int rank) {
    uint32_t address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(address)
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(mine))), "r"(rank));
    return address;
  }
#endif

  Memory& memory_;
  int turn_ = 0;
};

}  // namespace volley::cuda
