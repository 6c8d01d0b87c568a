#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "core/tensor/tensor.h"

namespace volley {

// Shared handle of an allocation in a backend's memory, aligned to at least 64 bytes.
class Buffer {
 public:
  Buffer() = default;
  Buffer(std::shared_ptr<std::byte> memory, int64_t bytes) : memory_(std::move(memory)), bytes_(bytes) {}

  std::byte* data() const { return memory_.get(); }
  int64_t bytes() const { return bytes_; }

  // The first elements as a tensor of `shape`.
  template <typename T>
  View<T> view(Shape shape) const {
    VOLLEY_ASSERT(shape.size() * static_cast<int64_t>(sizeof(T)) <= bytes_);
    return {reinterpret_cast<T*>(memory_.get()), shape};
  }

 private:
  std::shared_ptr<std::byte> memory_;
  int64_t bytes_ = 0;
};

// Where buffers come from.
class Memory {
 public:
  virtual ~Memory() = default;
  // Uninitialised, aligned to 64 bytes. Throws Error naming the bytes asked for when there is too little.
  virtual Buffer allocate(int64_t bytes) const = 0;
};

}  // namespace volley
