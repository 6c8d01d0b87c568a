#include "core/backend/cpu/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/base/error.h"

namespace volley {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kLargePage = int64_t{2} << 20;
constexpr int64_t kSlabBytes = int64_t{32} << 20;

int64_t rounded(int64_t bytes) {
  return std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
}

[[noreturn]] void out_of_memory(int64_t bytes) {
  throw Error("out of memory: " + std::to_string(bytes) + " bytes of host memory needed");
}

// Null when there is too little. Large blocks lie in large pages where the system has them.
std::byte* allocate_block(int64_t bytes) {
  const bool is_large = bytes >= 4 * kLargePage;
  const int64_t alignment = is_large ? kLargePage : kAlignment;
  const int64_t size = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(size));
#if defined(MADV_HUGEPAGE)
  if (memory != nullptr && is_large) madvise(memory, static_cast<size_t>(size), MADV_HUGEPAGE);
#endif
  return static_cast<std::byte*>(memory);
}

}  // namespace

void HostMemory::count(int64_t bytes) const {
  const int64_t now = counts_->now.fetch_add(bytes) + bytes;
  int64_t peak = counts_->peak.load();
  while (peak < now && !counts_->peak.compare_exchange_weak(peak, now)) {
  }
}

Buffer HostMemory::allocate(int64_t bytes) const {
  VOLLEY_ASSERT(bytes >= 0);
  const int64_t size = rounded(bytes);
  std::byte* memory = allocate_block(size);
  if (memory == nullptr) out_of_memory(bytes);
  count(size);
  return Buffer(std::shared_ptr<std::byte>(memory,
                                           [counts = counts_, size](std::byte* freed) {
                                             std::free(freed);
                                             counts->now.fetch_sub(size);
                                           }),
                bytes);
}

Buffer HostMemory::allocate_lasting(int64_t bytes) const {
  VOLLEY_ASSERT(bytes >= 0);
  const int64_t size = rounded(bytes);
  if (size > kSlabBytes) return allocate(bytes);
  std::lock_guard lock(mutex_);
  if (slab_ == nullptr || slab_used_ + size > kSlabBytes) {
    std::byte* memory = allocate_block(kSlabBytes);
    if (memory == nullptr) out_of_memory(bytes);
    slab_ = {memory, [](std::byte* freed) { std::free(freed); }};
    slab_used_ = 0;
  }
  std::byte* begin = slab_.get() + slab_used_;
  slab_used_ += size;
  count(size);
  return Buffer(std::shared_ptr<std::byte>(begin, [counts = counts_, size, slab = slab_](
                                                      std::byte*) { counts->now.fetch_sub(size); }),
                bytes);
}

}  // namespace volley
