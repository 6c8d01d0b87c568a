#pragma once

#include "core/backend/backend.h"
#include "core/backend/cpu/convolution_input.h"
#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/host_memory.h"
#include "core/backend/cpu/scratch_pool.h"
#include "core/backend/operations.h"
#include "core/base/thread_pool.h"

namespace volley {

// Convolutions with bf16 weights, as products of points with the groups of a packed weight
// (packed_weight.h): its depth is the kernel's taps in row-major order, and in each the input channels,
// padded to a multiple of 32.
PackedBytes grouped_convolution_bytes(const Shape& shape);
ConvWeight pack_grouped_convolution(const HostView& weight, const HostView& bias, const HostMemory& memory,
                                    ThreadPool& threads);

// The weight as a product's [out, taps * padded channels], and back.
LinearWeight grouped_convolution_as_linear(const ConvWeight& weight);
ConvWeight grouped_convolution_from_linear(const LinearWeight& weight, const HostView& bias,
                                           const Shape& shape, const HostMemory& memory);

// Every output element is one chain of additions over its taps, so its bits depend neither on the other
// pictures nor on how the work is cut.
struct GroupedConvolutionArgs {
  const Conv2dArgs& convolution;
  const ConvInput& input;  // where the values of convolution.x come from
  const GroupedProducts& products;
  ThreadPool& threads;
  ScratchPool& scratch;
};
void run_grouped_convolution(const GroupedConvolutionArgs& args);
// Whether no two threads copy the same band of the input. A row of it is copied once then, but for rows that
// neighbouring bands share, where the stride is one.
bool copies_input_once(const Conv2dArgs& args, const GroupedProducts& products, int64_t threads);
// Takes of `scratch` what that takes of it on so many threads, and gives it back.
struct ReserveGroupedConvolutionArgs {
  const Conv2dArgs& convolution;
  const GroupedProducts& products;
  int64_t threads = 0;
  ScratchPool& scratch;
};
void reserve_grouped_convolution(const ReserveGroupedConvolutionArgs& args);

}  // namespace volley
