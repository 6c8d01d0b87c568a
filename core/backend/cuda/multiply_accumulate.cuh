#pragma once

#include <cstdint>

namespace volley::cuda {

// sums += a * b of 16 rows by 16 inputs and 16 inputs by 8 outputs, bf16 with f32 sums, over the lanes of a
// warp. Ref: PTX ISA, mma.m16n8k16.
__device__ inline void multiply_accumulate(float (&sums)[4], const uint4& a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

}  // namespace volley::cuda
