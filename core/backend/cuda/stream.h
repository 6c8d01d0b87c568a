#pragma once

#include <cuda_runtime_api.h>

namespace volley::cuda {

// Where kernels are launched.
struct Stream {
  cudaStream_t handle = nullptr;
  bool overlaps = false;   // the device can begin an operation while the one before it ends (9.0 and later)
  bool has_wgmma = false;  // and this build has the kernels that use it
};

}  // namespace volley::cuda
