#pragma once

// Launches that may begin before the one before them in the stream has ended. Every kernel therefore calls
// `await_previous()`, before which it may read only weights, its own arguments, and the tables of steps and
// caches: those change by copies, behind which nothing overlaps, or by `move_entries`, behind which CudaQueue
// does not let it.

#include <cuda_runtime.h>

#include <cstdint>

#include "core/backend/cuda/status.h"
#include "core/backend/cuda/stream.h"

namespace volley::cuda {

// Waits until all earlier operations of the stream are done and seen, then lets the next one begin.
__device__ inline void await_previous() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

// Whether vectors of so many bytes may be read and written there.
__host__ __device__ inline bool is_aligned(const void* place, unsigned bytes) {
  return reinterpret_cast<uintptr_t>(place) % bytes == 0;
}

// `shared_bytes` beyond what the kernel declares itself; `cluster` neighbouring blocks see each other's.
// `meets`: all blocks run at once, so that they can wait for each other.
struct Geometry {
  dim3 grid;
  int threads = 0;
  int64_t shared_bytes = 0;
  unsigned cluster = 1;
  bool meets = false;
};

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const Geometry& geometry, const Stream& stream,
            const Arguments&... arguments) {
  const bool follows_program = stream.program != nullptr && end_program(*stream.program);
  constexpr int64_t kGiven = 16 << 10;  // without asking, beside what the kernel declares
  if (geometry.shared_bytes > kGiven) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(geometry.shared_bytes)),
          name);
  }
  cudaLaunchAttribute attributes[3]{};
  unsigned count = 0;
  if (stream.overlaps && !follows_program) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (geometry.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {geometry.cluster, 1, 1};
  }
  if (geometry.meets) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = geometry.grid;
  config.blockDim = dim3(static_cast<unsigned>(geometry.threads));
  config.dynamicSmemBytes = static_cast<size_t>(geometry.shared_bytes);
  config.stream = stream.handle;
  config.attrs = attributes;
  config.numAttrs = count;
  check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), name);
}

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, int threads, const Stream& stream,
            const Arguments&... arguments) {
  launch(name, kernel, Geometry{.grid = grid, .threads = threads}, stream, arguments...);
}

}  // namespace volley::cuda
