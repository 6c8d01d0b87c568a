#pragma once

// Tiles in shared memory: copies into them that run beside the thread, and how lanes read them as
// multiply-accumulates take them.

#include <cstddef>
#include <cstdint>

namespace volley::cuda {

__device__ inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// ---- Copies; groups of them end in order.

// Of `bytes` of 16; the rest becomes zeros.
__device__ inline void copy_vector(uint32_t shared, const void* from, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(bytes)
               : "memory");
}
__device__ inline void end_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits for all groups of copies but the last kLast.
template <int kLast>
__device__ void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLast) : "memory");
}

// ---- Four 8 x 8 matrices of bf16. Lane l gives the address of row l % 8 of matrix l / 8.

__device__ inline uint4 matrices(uint32_t address) {
  uint4 m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m.x), "=r"(m.y), "=r"(m.z), "=r"(m.w)
               : "r"(address)
               : "memory");
  return m;
}
__device__ inline uint4 transposed_matrices(uint32_t address) {
  uint4 m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m.x), "=r"(m.y), "=r"(m.z), "=r"(m.w)
               : "r"(address)
               : "memory");
  return m;
}

}  // namespace volley::cuda
