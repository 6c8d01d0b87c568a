#pragma once

// What convolutions over rounded planes are made of, beside wgmma.cuh: copies of boxes of points, and
// products of weights in registers by points in shared memory. All of it is sm_90a's.

#include "core/backend/cuda/wgmma.cuh"

namespace volley::cuda {

struct BoxPlace {
  int x;
  int y;
  int z;
};
// Where `active`: arrives at the barrier announcing `bytes`, which are a box of the map. What lies outside of
// it becomes zeros. Without a branch: products that are under way keep their registers.
__device__ inline void bring_box(bool active, uint32_t to, uint32_t bytes, const CUtensorMap& map,
                                 const BoxPlace& from, Barrier& barrier) {
  asm volatile(
      "{\n"
      ".reg .pred active;\n"
      "setp.ne.b32 active, %7, 0;\n"
      "@active mbarrier.arrive.expect_tx.shared::cta.b64 _, [%5], %6;\n"
      "@active cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3, %4}], [%5];\n"
      "}" ::"r"(to),
      "l"(&map), "r"(from.x), "r"(from.y), "r"(from.z), "r"(shared_address(&barrier.state)), "r"(bytes),
      "r"(static_cast<int>(active))
      : "memory");
}

// Points as wgmma finds them: 8 inputs of 8 neighbouring points are 128 bytes; `next_inputs` bytes on lie the
// next 8 inputs, `next_points` bytes on the next 8 points.
__device__ inline uint64_t points_at(uint32_t shared, uint32_t next_inputs, uint32_t next_points) {
  return uint64_t{(shared & 0x3ffff) >> 4} | uint64_t{next_inputs >> 4} << 16 |
         uint64_t{next_points >> 4} << 32;
}

// sums += 64 rows of weights by 16 inputs times 16 inputs by 8 points each. Of the four warps each has 16
// rows, as multiply_accumulate.cuh has them, and their sums.
#define VOLLEY_SUMS(j) "+f"(sums[j][0]), "+f"(sums[j][1]), "+f"(sums[j][2]), "+f"(sums[j][3])
#define VOLLEY_SUMS_OF_4(j) VOLLEY_SUMS(j), VOLLEY_SUMS((j) + 1), VOLLEY_SUMS((j) + 2), VOLLEY_SUMS((j) + 3)
#define VOLLEY_SUMS_OF_16(j) \
  VOLLEY_SUMS_OF_4(j), VOLLEY_SUMS_OF_4((j) + 4), VOLLEY_SUMS_OF_4((j) + 8), VOLLEY_SUMS_OF_4((j) + 12)

// clang-format off
__device__ inline void multiply_points(float (&sums)[8][4], const uint4& a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
      : VOLLEY_SUMS_OF_4(0), VOLLEY_SUMS_OF_4(4)
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b));
}
__device__ inline void multiply_points(float (&sums)[16][4], const uint4& a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
      : VOLLEY_SUMS_OF_16(0)
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b));
}
__device__ inline void multiply_points(float (&sums)[32][4], const uint4& a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "{%128, %129, %130, %131}, %132, 1, 1, 1, 0;"
      : VOLLEY_SUMS_OF_16(0), VOLLEY_SUMS_OF_16(16)
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b));
}
// clang-format on

#undef VOLLEY_SUMS_OF_16
#undef VOLLEY_SUMS_OF_4
#undef VOLLEY_SUMS

}  // namespace volley::cuda
