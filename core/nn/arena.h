#pragma once

#include <cstdint>
#include <vector>

#include "core/backend/backend.h"

namespace volley {

// Scratch memory of one step: tensors are handed out one after the other and all given back by `reset`. The same
// sequence of requests gets the same addresses every time, and after the first time nothing is allocated: what a
// captured step needs.
class Arena {
 public:
  explicit Arena(const Backend& backend) : backend_(backend) {}

  // Uninitialised f32 elements, valid until `reset`.
  Tensor tensor(Shape shape) { return {reinterpret_cast<float*>(take(shape.size() * 4)), shape}; }
  View<int32_t> indices(Shape shape) { return {reinterpret_cast<int32_t*>(take(shape.size() * 4)), shape}; }

  // Gives everything back. If the last step outgrew the memory, the blocks become one that holds it all.
  void reset();
  int64_t bytes() const;

 private:
  std::byte* take(int64_t bytes);

  const Backend& backend_;
  std::vector<Buffer> blocks_;
  size_t block_ = 0;     // block in use
  int64_t offset_ = 0;   // first free byte in it
};

}  // namespace volley
