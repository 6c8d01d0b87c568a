#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <string_view>

#include "core/base/error.h"

namespace volley::cuda {

// Throws Error("cuda: <what>: <the runtime's words>") unless the call went well.
inline void check(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  throw Error("cuda: " + std::string(what) + ": " + cudaGetErrorString(status));
}

}  // namespace volley::cuda
