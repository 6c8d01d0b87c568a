#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "core/backend/buffer.h"

namespace volley::cuda {

// Allocates memory of one device and counts it. Buffers may outlive the allocator.
class DeviceMemory : public Memory {
 public:
  DeviceMemory(int device, std::string name) : device_(device), name_(std::move(name)) {}

  // Uninitialised, aligned to 256 bytes. Throws Error naming the bytes needed and free when there is too
  // little memory.
  Buffer allocate(int64_t bytes) const override;
  int64_t allocated_bytes() const { return counts_->now.load(); }
  int64_t peak_bytes() const { return counts_->peak.load(); }

 private:
  struct Counts {
    std::atomic<int64_t> now = 0;
    std::atomic<int64_t> peak = 0;
  };

  int device_;
  std::string name_;
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

}  // namespace volley::cuda
