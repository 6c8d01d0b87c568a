#pragma once

#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "core/backend/cpu/host_memory.h"

namespace volley {

// Work memory that the items of a loop borrow: there are never more pieces than threads, each grows to the largest
// need and stays, so a steady state allocates nothing.
class ScratchPool {
 public:
  explicit ScratchPool(const HostMemory& memory) : memory_(memory) {}

  // A piece of at least the asked size, aligned to 64 bytes, given back on destruction. Contents are undefined.
  class Lease {
   public:
    Lease(ScratchPool& pool, Buffer buffer) : pool_(pool), buffer_(std::move(buffer)) {}
    ~Lease() { pool_.give_back(std::move(buffer_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    template <typename T>
    T* as() const {
      return reinterpret_cast<T*>(buffer_.data());
    }

   private:
    ScratchPool& pool_;
    Buffer buffer_;
  };

  Lease take(int64_t bytes) {
    Buffer buffer;
    {
      std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        buffer = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (buffer.bytes() < bytes) buffer = memory_.allocate(bytes);
    return Lease(*this, std::move(buffer));
  }

 private:
  void give_back(Buffer buffer) {
    std::lock_guard lock(mutex_);
    free_.push_back(std::move(buffer));
  }

  const HostMemory& memory_;
  std::mutex mutex_;
  std::vector<Buffer> free_;
};

}  // namespace volley
