#pragma once

#include "core/backend/backend.h"
#include "core/backend/cpu/convolution_input.h"
#include "core/backend/cpu/host_memory.h"
#include "core/backend/cpu/scratch_pool.h"
#include "core/backend/operations.h"
#include "core/base/thread_pool.h"

namespace volley {

// Of a bias of so many channels, padded.
int64_t convolution_bias_bytes(int64_t channels);
// The extents of a convolution's weight [out, in, kh, kw] and its bias, padded with zeros; no data yet.
ConvWeight describe_convolution(const Shape& shape, const HostView& bias, const HostMemory& memory);

// f32 convolutions.
PackedBytes convolution_bytes(const Shape& shape);
ConvWeight pack_convolution(const HostView& weight, const HostView& bias, const HostMemory& memory);

// Every output element is one chain of multiply-adds over (input channel, kernel row, kernel column), so its
// bits depend neither on the other pictures nor on how the work is cut.
// args.x has the input's shape; its values come from `input`.
void run_convolution(const Conv2dArgs& args, const ConvInput& input, ThreadPool& threads,
                     ScratchPool& scratch);
// Whether no two threads copy the same band of the input. A row of it is copied once then, but for rows that
// neighbouring bands share, where the stride is one.
bool copies_input_once(const Conv2dArgs& args, int64_t threads);
// Takes of `scratch` what that takes of it on so many threads, and gives it back.
void reserve_convolution(const Conv2dArgs& args, int64_t threads, ScratchPool& scratch);

}  // namespace volley
