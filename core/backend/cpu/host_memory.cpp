#include "core/backend/cpu/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/base/error.h"

namespace volley {

Buffer HostMemory::allocate(int64_t bytes) const {
  // Large blocks lie in large pages where the system has them: fewer translations when a weight streams by.
  constexpr int64_t kLargePage = int64_t{2} << 20;
  VOLLEY_ASSERT(bytes >= 0);
  const int64_t alignment = bytes >= 4 * kLargePage ? kLargePage : 64;
  const int64_t rounded = std::max<int64_t>(64, (bytes + 63) / 64 * 64);
  void* memory = std::aligned_alloc(static_cast<size_t>(alignment),
                                    static_cast<size_t>((rounded + alignment - 1) / alignment * alignment));
  if (memory == nullptr)
    throw Error("out of memory: " + std::to_string(bytes) + " bytes of host memory needed");
#if defined(MADV_HUGEPAGE)
  if (alignment == kLargePage) {
    madvise(memory, static_cast<size_t>(rounded / kLargePage * kLargePage), MADV_HUGEPAGE);
  }
#endif
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
