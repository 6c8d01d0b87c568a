#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "core/backend/buffer.h"

namespace volley {

// Work memory that the items of a loop borrow. Pieces stay, so a steady state allocates nothing.
class ScratchPool {
 public:
  explicit ScratchPool(const Memory& memory) : memory_(memory) {}

  // A piece of at least the asked size, aligned to 64 bytes, given back on destruction. Contents are
  // undefined.
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

  // Makes sure that `count` pieces of that size are free: for a loop whose items take one each, before it
  // begins, so that no thread allocates, however late it joins.
  void prepare(int64_t count, int64_t bytes) {
    std::lock_guard lock(mutex_);
    std::ranges::sort(free_, std::less(), &Buffer::bytes);
    const auto fitting = std::ranges::lower_bound(free_, bytes, std::less(), &Buffer::bytes);
    const int64_t missing = count - (free_.end() - fitting);
    // Pieces that are too small make room for those that come.
    if (missing > 0) free_.erase(fitting - std::min<int64_t>(missing, fitting - free_.begin()), fitting);
    for (int64_t i = 0; i < missing; ++i) {
      Buffer piece = memory_.allocate(bytes);
      free_.reserve(static_cast<size_t>(++pieces_));  // giving a piece back never allocates
      free_.push_back(std::move(piece));
    }
  }

  Lease take(int64_t bytes) {
    {
      std::lock_guard lock(mutex_);
      const auto least = [&](const Buffer& a, const Buffer& b) {
        return (a.bytes() >= bytes) != (b.bytes() >= bytes) ? a.bytes() >= bytes : a.bytes() < b.bytes();
      };
      const auto piece = std::ranges::min_element(free_, least);
      if (piece != free_.end() && piece->bytes() >= bytes) {
        Buffer buffer = std::move(*piece);
        free_.erase(piece);
        return Lease(*this, std::move(buffer));
      }
    }
    prepare(1, bytes);
    return take(bytes);
  }

 private:
  void give_back(Buffer buffer) {
    std::lock_guard lock(mutex_);
    free_.push_back(std::move(buffer));
  }

  const Memory& memory_;
  std::mutex mutex_;
  int64_t pieces_ = 0;  // that there have been
  std::vector<Buffer> free_;
};

}  // namespace volley
