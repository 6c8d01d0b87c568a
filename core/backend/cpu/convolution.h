#pragma once

#include "core/backend/cpu/scratch_pool.h"
#include "core/backend/operations.h"
#include "core/base/thread_pool.h"

namespace volley {

// The extents of a convolution's weight [out, in, kh, kw] and its bias, padded with zeros; no data yet.
ConvWeight describe_convolution(const Shape& shape, const HostView& bias, const HostMemory& memory);

// f32 convolutions.
ConvWeight pack_convolution(const HostView& weight, const HostView& bias, const HostMemory& memory);

// Every output element is one chain of multiply-adds over (input channel, kernel row, kernel column), so its
// bits depend neither on the other pictures nor on how the work is cut.
void run_convolution(const Conv2dArgs& args, ThreadPool& threads, ScratchPool& scratch);

}  // namespace volley
