#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "core/backend/buffer.h"

namespace volley {

// Allocates host memory aligned to 64 bytes and counts it. Buffers may outlive the allocator.
class HostMemory {
 public:
  // Uninitialised. Throws Error naming the bytes asked for when there is too little memory.
  Buffer allocate(int64_t bytes) const;
  int64_t allocated_bytes() const { return counts_->now.load(); }
  int64_t peak_bytes() const { return counts_->peak.load(); }

 private:
  struct Counts {
    std::atomic<int64_t> now = 0;
    std::atomic<int64_t> peak = 0;
  };
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

}  // namespace volley
