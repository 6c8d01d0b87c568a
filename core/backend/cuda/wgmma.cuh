#pragma once

// What the kernels with wgmma are made of: barriers in shared memory that count bytes, copies that complete
// on them, multiply-accumulates of four warps. All of it is sm_90a's. Ref: PTX ISA, sections on mbarrier,
// cp.async.bulk and wgmma.

#include <cuda.h>

#include <cstdint>

#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/shared_tiles.cuh"

namespace volley::cuda {

// ---- Barriers. A phase ends when `arrivals` have come and all bytes that were announced.

struct Barrier {
  uint64_t state;

  __device__ void init(unsigned arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(&state)), "r"(arrivals)
                 : "memory");
  }
  // Waits for the end of the phase of this parity; phases count from 0, and the one before is over.
  __device__ void wait(unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred over;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared.b64 over, [%0], %1;\n"
        "@over bra done;\n"
        "bra again;\n"
        "done:\n"
        "}" ::"r"(shared_address(&state)),
        "r"(parity)
        : "memory");
  }
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(&state)) : "memory");
  }
  __device__ void arrive_and_announce(unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(&state)), "r"(bytes)
                 : "memory");
  }
};
// Makes barriers seen by copies.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// ---- Clusters

// By all threads of all blocks.
__device__ inline void meet_cluster() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// What lies at the place in another block of the cluster.
__device__ inline float2 read_of_block(const float2* place, int rank) {
  float2 value;
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %2, %3;\n"
      "ld.shared::cluster.v2.f32 {%0, %1}, [there];\n"
      "}"
      : "=f"(value.x), "=f"(value.y)
      : "r"(shared_address(place)), "r"(rank)
      : "memory");
  return value;
}

// ---- Copies of boxes of a map, which is a parameter of the kernel. What lies outside of it becomes zeros.

// A map's place: block of 512 bytes of a step, and of eight outputs or rows.
struct MapPlace {
  int step;
  int eight;
};
__device__ inline void copy_box(void* to, const CUtensorMap& map, MapPlace from, Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(to)),
      "l"(&map), "r"(0), "r"(from.step), "r"(from.eight), "r"(shared_address(&barrier.state))
      : "memory");
}
__device__ inline void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// ---- Multiply-accumulates by four warps

template <int kRegisters>
__device__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// A matrix in shared memory: eights of rows, `stride` bytes apart, each a block of 512 bytes in 64-byte
// swizzle.
struct Matrix {
  uint32_t place;
  uint32_t kind;

  __device__ Matrix(const void* first, uint32_t stride)
      : place((shared_address(first) & 0x3ffff) >> 4), kind(stride >> 4 | 2u << 30) {}
  __device__ Matrix moved(uint32_t bytes) const {
    Matrix matrix = *this;
    matrix.place += bytes >> 4;
    return matrix;
  }
};

__device__ inline void begin_groups() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void end_group() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most kLeft groups are under way.
template <int kLeft>
__device__ void await_groups() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
// Keeps what is done with sums behind what was waited for.
template <int kCount>
__device__ void pin(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// begin: sums = 0, then add: sums += 64 rows by 16 inputs times 16 inputs by 2 * kCount outputs. Warp w has
// rows 16 * w .. + 15; lane l of it has of the i-th 8 outputs sums[4 * i] .. + 3: (row l / 4, outputs 2 * (l
// % 4) and the next), (row l / 4 + 8, the same).
template <int kCount>
struct GroupMultiply;

#define VOLLEY_FIRST_16              \
  "%0, %1, %2, %3, %4, %5, %6, %7, " \
  "%8, %9, %10, %11, %12, %13, %14, %15"
#define VOLLEY_FIRST_32                      \
  VOLLEY_FIRST_16                            \
  ", "                                       \
  "%16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define VOLLEY_FIRST_48                      \
  VOLLEY_FIRST_32                            \
  ", "                                       \
  "%32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47"
#define VOLLEY_FIRST_64                      \
  VOLLEY_FIRST_48                            \
  ", "                                       \
  "%48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63"
#define VOLLEY_FIRST_128                             \
  VOLLEY_FIRST_64                                    \
  ", "                                               \
  "%64, %65, %66, %67, %68, %69, %70, %71, "         \
  "%72, %73, %74, %75, %76, %77, %78, %79, "         \
  "%80, %81, %82, %83, %84, %85, %86, %87, "         \
  "%88, %89, %90, %91, %92, %93, %94, %95, "         \
  "%96, %97, %98, %99, %100, %101, %102, %103, "     \
  "%104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, " \
  "%120, %121, %122, %123, %124, %125, %126, %127"
#define VOLLEY_SUMS_8(how, i)                                                                             \
  how(sums[i]), how(sums[i + 1]), how(sums[i + 2]), how(sums[i + 3]), how(sums[i + 4]), how(sums[i + 5]), \
      how(sums[i + 6]), how(sums[i + 7])
#define VOLLEY_SUMS_16(how, i) VOLLEY_SUMS_8(how, i), VOLLEY_SUMS_8(how, i + 8)
#define VOLLEY_SUMS_32(how, i) VOLLEY_SUMS_16(how, i), VOLLEY_SUMS_16(how, i + 16)
#define VOLLEY_SUMS_48(how, i) VOLLEY_SUMS_32(how, i), VOLLEY_SUMS_16(how, i + 32)
#define VOLLEY_SUMS_64(how, i) VOLLEY_SUMS_32(how, i), VOLLEY_SUMS_32(how, i + 32)
#define VOLLEY_SUMS_128(how, i) VOLLEY_SUMS_64(how, i), VOLLEY_SUMS_64(how, i + 64)
// `first`, `second` and `third` are the operands behind the sums.
#define VOLLEY_MULTIPLY(name, count, outputs, first, second, third, adds, how)                  \
  __device__ static void name(float(&sums)[count], const Matrix& rows, const Matrix& weights) { \
    asm volatile(                                                                               \
        "{\n"                                                                                   \
        ".reg .b64 a, b;\n"                                                                     \
        ".reg .pred adds;\n"                                                                    \
        "setp.ne.b32 adds, " adds                                                               \
        ", 0;\n"                                                                                \
        "mov.b64 a, {" first ", " third                                                         \
        "};\n"                                                                                  \
        "mov.b64 b, {" second ", " third                                                        \
        "};\n"                                                                                  \
        "wgmma.mma_async.sync.aligned.m64n" outputs                                             \
        "k16.f32.bf16.bf16 "                                                                    \
        "{" VOLLEY_FIRST_##count                                                                \
        "}, a, b, adds, 1, 1, 0, 0;\n"                                                          \
        "}"                                                                                     \
        : VOLLEY_SUMS_##count(how, 0)                                                           \
        : "r"(rows.place), "r"(weights.place), "r"(rows.kind));                                 \
  }
#define VOLLEY_GROUP_MULTIPLY(count, outputs, first, second, third)         \
  template <>                                                               \
  struct GroupMultiply<count> {                                             \
    VOLLEY_MULTIPLY(begin, count, outputs, first, second, third, "0", "=f") \
    VOLLEY_MULTIPLY(add, count, outputs, first, second, third, "1", "+f")   \
  };
VOLLEY_GROUP_MULTIPLY(16, "32", "%16", "%17", "%18")
VOLLEY_GROUP_MULTIPLY(32, "64", "%32", "%33", "%34")
VOLLEY_GROUP_MULTIPLY(48, "96", "%48", "%49", "%50")
VOLLEY_GROUP_MULTIPLY(64, "128", "%64", "%65", "%66")
VOLLEY_GROUP_MULTIPLY(128, "256", "%128", "%129", "%130")
#undef VOLLEY_GROUP_MULTIPLY
#undef VOLLEY_MULTIPLY
#undef VOLLEY_SUMS_128
#undef VOLLEY_SUMS_64
#undef VOLLEY_SUMS_48
#undef VOLLEY_SUMS_32
#undef VOLLEY_SUMS_16
#undef VOLLEY_SUMS_8
#undef VOLLEY_FIRST_128
#undef VOLLEY_FIRST_64
#undef VOLLEY_FIRST_48
#undef VOLLEY_FIRST_32
#undef VOLLEY_FIRST_16

}  // namespace volley::cuda
