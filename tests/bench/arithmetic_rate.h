#pragma once

#include <cstdint>

namespace volley {

// What the processor multiplies and adds in registers, nothing read from memory. For kernels of plain vector
// units; those with dot products of bf16 or of bytes, and AMX, are faster.
enum class Arithmetic : uint8_t {
  kF32,   // fused multiply-adds of f32: what f32 and bf16 products are made of
  kInt16  // dot products of two i16, and adding them up: what q8_0 products are made of
};

// Operations (a multiply and an add are two) a second of `threads` threads together, each in the widest
// vectors that the backend may use: the best of several tries. 0 where its kernels work otherwise.
double arithmetic_rate(Arithmetic arithmetic, int64_t threads);

}  // namespace volley
