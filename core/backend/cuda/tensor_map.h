#pragma once

// Maps of bf16 elements in three dimensions, for the copy engine. Ref: CUDA driver API,
// cuTensorMapEncodeTiled.

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <string>

#include "core/backend/cuda/status.h"

namespace volley::cuda {

struct BoxMap {
  const void* elements = nullptr;       // at a multiple of 16 bytes
  std::array<cuuint64_t, 3> sizes{};    // elements
  std::array<cuuint64_t, 2> strides{};  // bytes, of the second dimension and the third
  std::array<cuuint32_t, 3> box{};      // what a copy takes: every steps[i]-th of so many elements
  std::array<cuuint32_t, 3> steps{1, 1, 1};
  CUtensorMapL2promotion promotion = CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_NONE;
};

// The driver's, which is not linked.
inline auto tensor_map_encoder() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult status{};
#if CUDART_VERSION >= 12050
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                           &status),
          "tensor maps");
#else
    check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &status),
          "tensor maps");
#endif
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  return found;
}

inline CUtensorMap tensor_map(const BoxMap& boxes) {
  const auto encode = tensor_map_encoder();
  if (encode == nullptr) throw Error("cuda: the driver has no tensor maps");
  CUtensorMap map{};
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(boxes.elements), boxes.sizes.data(),
             boxes.strides.data(), boxes.box.data(), boxes.steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
             boxes.swizzle, boxes.promotion, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw Error("cuda: tensor map: error " + std::to_string(static_cast<int>(result)));
  return map;
}

}  // namespace volley::cuda
