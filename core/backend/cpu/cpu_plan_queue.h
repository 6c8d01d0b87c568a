#pragma once

#include <memory>

#include "core/backend/cpu/cpu_queue.h"
#include "core/backend/plan_queue.h"

namespace volley {

// Takes of a memory what CpuQueue takes for its operations, and carries out nothing.
class CpuPlanQueue : public PlanQueue {
 public:
  CpuPlanQueue(std::shared_ptr<const CpuDevice> device, const Memory& memory)
      : device_(std::move(device)), scratch_(memory) {}

  void linear(const LinearArgs& args) override {
    device_->products.reserve(args, device_->threads.threads(), scratch_);
  }
  void linears(const LinearsArgs& args) override {
    device_->products.reserve(args, device_->threads.threads(), scratch_);
  }
  void gated_linears(const GatedLinearsArgs& args) override {
    device_->products.reserve(args, device_->threads.threads(), scratch_);
  }
  void rope(const RopeArgs& args) override { reserve_rope(args, device_->threads.threads(), scratch_); }
  void attention(const AttentionArgs& args) override;
  void dense_attention(const DenseAttentionArgs& args) override;
  void conv2d(const Conv2dArgs& args) override;

 private:
  std::shared_ptr<const CpuDevice> device_;
  ScratchPool scratch_;
};

}  // namespace volley
