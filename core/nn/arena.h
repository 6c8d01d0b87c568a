#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/backend/backend.h"

namespace volley {

// Scratch memory of one step: tensors are handed out one after the other and given back by `reset` or a
// Scope. The same sequence of requests gets the same addresses every time, and after the first time nothing
// is allocated: what a captured step needs.
class Arena {
 public:
  explicit Arena(const Backend& backend) : backend_(&backend) {}

  // Uninitialised f32 elements, valid until `reset` or the end of the scope.
  Tensor tensor(Shape shape) { return {reinterpret_cast<float*>(take(shape.size() * 4)), shape}; }
  // The same of bytes and of indices.
  View<uint8_t> bytes_of(Shape shape) { return {reinterpret_cast<uint8_t*>(take(shape.size())), shape}; }
  View<int32_t> indices(Shape shape) { return {reinterpret_cast<int32_t*>(take(shape.size() * 4)), shape}; }

  // Gives back what was handed out since it was made: temporaries of a layer. Operations run in order, so
  // memory may be handed out again while earlier operations on it are still to run.
  class Scope {
   public:
    explicit Scope(Arena& arena)
        : arena_(arena), block_(arena.block_), offset_(arena.offset_), used_(arena.used_) {}
    ~Scope() {
      arena_.block_ = block_;
      arena_.offset_ = offset_;
      arena_.used_ = used_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    size_t block_;
    int64_t offset_;
    int64_t used_;
  };

  // Gives everything back. If the last step outgrew the memory, the blocks become one that holds it all.
  void reset();
  // Gives everything back and makes the memory one block that holds what `work` takes of an arena. `work`
  // runs once on a queue that carries out nothing, with addresses that nobody may follow: memory that grows
  // while it is in use would be held twice.
  void reset_for(const std::function<void(Queue&, Arena&)>& work);
  int64_t bytes() const;
  // Where the next tensor will lie, if it fits; null before the first.
  const std::byte* next() const { return blocks_.empty() ? nullptr : blocks_[block_].data() + offset_; }
  // The number of the memory that it has now; no arena has the same number with other memory.
  int64_t serial() const { return serial_; }

 private:
  Arena() = default;  // hands out addresses without memory
  std::byte* take(int64_t bytes);

  void add_block(int64_t bytes);

  const Backend* backend_ = nullptr;
  int64_t serial_ = 0;
  std::vector<Buffer> blocks_;
  size_t block_ = 0;    // block in use
  int64_t offset_ = 0;  // first free byte in it
  int64_t used_ = 0;    // bytes that are handed out
  int64_t most_ = 0;    // at once, since the last reset
};

}  // namespace volley
