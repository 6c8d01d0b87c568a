#include "core/backend/cpu/host_memory.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/base/error.h"

namespace volley {

Buffer HostMemory::allocate(int64_t bytes) const {
  constexpr int64_t kAlignment = 64;
  VOLLEY_ASSERT(bytes >= 0);
  const int64_t rounded = std::max<int64_t>(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  void* memory = std::aligned_alloc(kAlignment, static_cast<size_t>(rounded));
  if (memory == nullptr)
    throw Error("out of memory: " + std::to_string(bytes) + " bytes of host memory needed");
  const int64_t now = counts_->now.fetch_add(rounded) + rounded;
  int64_t peak = counts_->peak.load();
  while (peak < now && !counts_->peak.compare_exchange_weak(peak, now)) {
  }
  return Buffer(std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                           [counts = counts_, rounded](std::byte* freed) {
                                             std::free(freed);
                                             counts->now.fetch_sub(rounded);
                                           }),
                bytes);
}

}  // namespace volley
