#include "core/backend/cpu/cpu_plan_queue.h"

#include "core/backend/cpu/attention.h"
#include "core/backend/cpu/convolution.h"
#include "core/backend/cpu/grouped_convolution.h"

namespace volley {

void CpuPlanQueue::attention(const AttentionArgs& args) {
  reserve_attention(args, device_->threads.threads(), scratch_);
}
void CpuPlanQueue::dense_attention(const DenseAttentionArgs& args) {
  reserve_dense_attention(args, device_->threads.threads(), scratch_);
}

void CpuPlanQueue::conv2d(const Conv2dArgs& args) {
  if (args.weight.type == WeightType::kF32)
    return reserve_convolution(args, device_->threads.threads(), scratch_);
  reserve_grouped_convolution({.convolution = args,
                               .products = device_->products.grouped(),
                               .threads = device_->threads.threads(),
                               .scratch = scratch_});
}

}  // namespace volley
