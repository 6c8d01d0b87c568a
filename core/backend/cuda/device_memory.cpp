#include "core/backend/cuda/device_memory.h"

#include <algorithm>

#include "core/backend/cuda/status.h"

namespace volley::cuda {

Buffer DeviceMemory::allocate(int64_t bytes) const {
  const auto wanted = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  check(cudaSetDevice(device_), name_);
  void* data = nullptr;
  if (const cudaError_t status = cudaMalloc(&data, wanted); status != cudaSuccess) {
    cudaGetLastError();  // an allocation that failed leaves the device usable
    size_t free_bytes = 0, total_bytes = 0;
    if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) check(status, name_ + ": allocation");
    throw Error(name_ + ": too little memory: " + std::to_string(bytes) + " bytes needed, " +
                std::to_string(free_bytes) + " of " + std::to_string(total_bytes) + " free");
  }
  const int64_t now = counts_->now += bytes;
  for (int64_t peak = counts_->peak; peak < now && !counts_->peak.compare_exchange_weak(peak, now);) {
  }
  return {std::shared_ptr<std::byte>(static_cast<std::byte*>(data),
                                     [counts = counts_, bytes](std::byte* memory) {
                                       cudaFree(memory);  // waits for what still uses it
                                       counts->now -= bytes;
                                     }),
          bytes};
}

}  // namespace volley::cuda
