#pragma once

// Results that the blocks of a program hand to each other word by word. Memory of such results holds kMissing
// until they are written, and no result is ever kMissing: who reads one sees whether it is there, so that no
// fence has to order the results of a phase in front of an arrival.
//
// - kMissing is a NaN with all bits set. An f32 result with these bits, if arithmetic ever makes one, is
//   posted as another NaN: what reads it adds to it, which makes the same of any NaN. Rounding to bf16 makes
//   0x7fff of every NaN, so that no half of a word of results is 0xffff.
// - Each result of a program has memory of its own, which is written once. A later phase, which begins when
//   all that read it have arrived, makes it missing again (ProgramPhase::forgotten): all of it is between
//   programs.
// - Who reads first waits until all blocks that write have arrived behind their stores (GridMeeting). What is
//   still missing then is on its way, and blocks run at once: nobody looks for it long.
// - Reads go beside the first-level cache, which might keep what was missing.

#include <cuda_bf16.h>

#include <cstdint>

#include "core/backend/cuda/row_parts.cuh"

namespace volley::cuda {

inline constexpr uint32_t kMissing = 0xffffffffu;
inline constexpr uint32_t kOtherNaN = 0x7fffffffu;

__device__ inline float read_posted(const float* from) {
  float value;
  asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(value) : "l"(from) : "memory");
  return value;
}

__device__ inline uint4 read_posted(const uint4* from) {
  uint4 value;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from)
               : "memory");
  return value;
}

__device__ inline bool is_missing(float value) {
  return __float_as_uint(value) == kMissing;
}
// Whether any number in f32 is missing.
__device__ inline bool is_any_missing(const uint4& v) {
  return v.x == kMissing || v.y == kMissing || v.z == kMissing || v.w == kMissing;
}
// Whether any number in bf16 is missing.
__device__ inline bool lacks_any(const uint4& v) {
  const auto missing = [](uint32_t word) { return (~word - 0x00010001u) & word & 0x80008000u; };
  return (missing(v.x) | missing(v.y) | missing(v.z) | missing(v.w)) != 0;
}

__device__ inline void post(float* to, float value) {
  if (is_missing(value)) value = __uint_as_float(kOtherNaN);
  asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(to), "f"(value) : "memory");
}
// Numbers that were rounded.
__device__ inline void post(__nv_bfloat16* to, __nv_bfloat16 value) {
  asm volatile("st.relaxed.gpu.global.b16 [%0], %1;" ::"l"(to), "h"(__bfloat16_as_ushort(value)) : "memory");
}
__device__ inline void post(uint2* to, uint2 value) {
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(value.x), "r"(value.y)
               : "memory");
}

}  // namespace volley::cuda
