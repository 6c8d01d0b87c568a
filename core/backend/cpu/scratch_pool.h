#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/backend/buffer.h"

namespace volley {

// Work memory that operations borrow. Pieces stay, so a steady state allocates nothing. Used by one thread at
// a time: what the threads of a loop need is taken before it begins.
class ScratchPool {
 public:
  explicit ScratchPool(const Memory& memory) : memory_(memory) {}

  // A piece of at least the asked size, aligned to 64 bytes, given back on destruction. Contents are
  // undefined.
  class Lease {
   public:
    Lease(ScratchPool& pool, Buffer buffer) : pool_(pool), buffer_(std::move(buffer)) {}
    ~Lease() { pool_.free_.push_back(std::move(buffer_)); }
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

  // As many pieces of one size as there are threads, for the items of a loop: each takes that of the thread
  // that does it (ThreadPool::parallel_for).
  class ThreadLease {
   public:
    ThreadLease(ScratchPool& pool, int64_t threads, int64_t bytes)
        : pool_(pool),
          number_(++pool.thread_leases_),
          stride_((bytes + kAlignment - 1) / kAlignment * kAlignment),
          lease_(pool.take(threads * stride_)) {
      if (static_cast<int64_t>(pool.marks_.size()) < threads)
        pool.marks_.resize(static_cast<size_t>(threads));
    }

    template <typename T>
    T* of(int64_t thread) const {
      return reinterpret_cast<T*>(lease_.as<std::byte>() + thread * stride_);
    }

    // True when the thread asks for the first time, and has asked of no lease that began later.
    bool is_first_use(int64_t thread) const {
      return std::exchange(pool_.marks_[static_cast<size_t>(thread)].lease, number_) != number_;
    }

   private:
    static constexpr int64_t kAlignment = 64;
    ScratchPool& pool_;
    int64_t number_ = 0;
    int64_t stride_ = 0;
    Lease lease_;
  };

  Lease take(int64_t bytes) {
    const auto least = [&](const Buffer& a, const Buffer& b) {
      return (a.bytes() >= bytes) != (b.bytes() >= bytes) ? a.bytes() >= bytes : a.bytes() < b.bytes();
    };
    const auto piece = std::ranges::min_element(free_, least);
    if (piece != free_.end() && piece->bytes() >= bytes) {
      Buffer buffer = std::move(*piece);
      free_.erase(piece);
      return Lease(*this, std::move(buffer));
    }
    // One that is too small, the largest, makes room.
    if (!free_.empty()) free_.erase(std::ranges::max_element(free_, {}, &Buffer::bytes));
    Buffer made = memory_.allocate(bytes);
    free_.reserve(static_cast<size_t>(++pieces_));  // giving a piece back never allocates
    return Lease(*this, std::move(made));
  }

 private:
  // The lease that a thread has used last; a line of memory each, which no other thread needs.
  struct alignas(64) Mark {
    int64_t lease = 0;
  };

  const Memory& memory_;
  int64_t thread_leases_ = 0;  // that there have been
  std::vector<Mark> marks_;
  int64_t pieces_ = 0;  // that there have been
  std::vector<Buffer> free_;
};

}  // namespace volley
