#include "core/nn/arena.h"

#include "core/backend/plan_queue.h"
#include "core/base/serial.h"

namespace volley {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kMinimumBlock = 1 << 20;

}  // namespace

std::byte* Arena::take(int64_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  used_ += bytes;
  most_ = std::max(most_, used_);
  if (backend_ == nullptr) return reinterpret_cast<std::byte*>(kAlignment + used_ - bytes);
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
  blocks_.push_back(backend_->allocate(bytes));
  serial_ = next_serial();
}

void Arena::reset() {
  if (blocks_.size() > 1) {
    const int64_t needed = std::max(most_, kMinimumBlock);
    blocks_.clear();
    add_block(needed);
  }
  block_ = 0;
  offset_ = 0;
  used_ = 0;
  most_ = 0;
}

void Arena::reset_for(const std::function<void(Queue&, Arena&)>& work) {
  PlanQueue queue;
  Arena plan;
  work(queue, plan);
  const int64_t needed = std::max(plan.most_, kMinimumBlock);
  if (bytes() < needed || blocks_.size() > 1) {
    const int64_t held = std::max(needed, blocks_.empty() ? 0 : blocks_.front().bytes());
    blocks_.clear();
    add_block(held);
  }
  reset();
}

int64_t Arena::bytes() const {
  int64_t total = 0;
  for (const Buffer& block : blocks_) total += block.bytes();
  return total;
}

}  // namespace volley
