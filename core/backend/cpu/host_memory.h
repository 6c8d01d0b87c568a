#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "core/backend/buffer.h"

namespace volley {

// Allocates host memory aligned to 64 bytes and counts it. Buffers may outlive the allocator.
class HostMemory : public Memory {
 public:
  Buffer allocate(int64_t bytes) const override;
  // The same for what lives as long as a model: such buffers lie side by side in large pages, where the
  // system has them, because a step streams through all of them and each small page would cost a translation.
  // The memory goes back when all buffers of a slab are gone.
  Buffer allocate_lasting(int64_t bytes) const;
  int64_t allocated_bytes() const { return counts_->now.load(); }
  int64_t peak_bytes() const { return counts_->peak.load(); }

 private:
  struct Counts {
    std::atomic<int64_t> now = 0;
    std::atomic<int64_t> peak = 0;
  };
  void count(int64_t bytes) const;

  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
  mutable std::mutex mutex_;
  mutable std::shared_ptr<std::byte> slab_;
  mutable int64_t slab_used_ = 0;
};

}  // namespace volley
