#include "core/nn/arena.h"

#include <algorithm>

#include "core/base/serial.h"

namespace volley {

std::byte* Arena::take(int64_t bytes) {
  constexpr int64_t kAlignment = 64;
  constexpr int64_t kMinimumBlock = 1 << 20;
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (block_ < blocks_.size() && offset_ + bytes > blocks_[block_].bytes()) {
    ++block_;
    offset_ = 0;
  }
  if (block_ == blocks_.size()) add_block(std::max(bytes, kMinimumBlock));
  std::byte* memory = blocks_[block_].data() + offset_;
  offset_ += bytes;
  return memory;
}

void Arena::add_block(int64_t bytes) {
  blocks_.push_back(backend_.allocate(bytes));
  serial_ = next_serial();
}

void Arena::reset() {
  if (blocks_.size() > 1) {
    const int64_t total = bytes();
    blocks_.clear();
    add_block(total);
  }
  block_ = 0;
  offset_ = 0;
}

int64_t Arena::bytes() const {
  int64_t total = 0;
  for (const Buffer& block : blocks_) total += block.bytes();
  return total;
}

}  // namespace volley
