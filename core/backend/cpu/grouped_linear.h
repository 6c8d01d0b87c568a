#pragma once

// Products of rows with packed weights of one type (packed_weight.h).

#include <span>

#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/scratch_pool.h"
#include "core/base/thread_pool.h"

namespace volley {

struct GroupedLinearArgs {
  ConstTensor x;                          // [R, in_features]
  std::span<const LinearTarget> targets;  // of one type and depth
  Accumulate accumulate = Accumulate::kAssign;
  const RmsNormArgs* norm = nullptr;  // what makes of x, its own, the rows that are multiplied
  Tensor gated;  // of two targets: [R, out_features] silu(first) * second, or data == nullptr

  int64_t rows() const { return x.size() / targets.front().weight->in_features; }
};

struct GroupedLinearContext {
  const GroupedProducts& products;
  ThreadPool& threads;
  ScratchPool& scratch;
};

// Whether `norm` may be given: rows are so few that every thread norms and converts them for itself.
bool norms_rows(const GroupedLinearArgs& args, const GroupedProducts& products, int64_t threads);
// One loop of the threads.
void run_grouped_linear(const GroupedLinearArgs& args, const GroupedLinearContext& context);
// Takes of `scratch` what that takes of it on so many threads, and gives it back; `norm` makes no difference,
// and no address but whether `gated` has one.
void reserve_grouped_linear(const GroupedLinearArgs& args, const GroupedProducts& products, int64_t threads,
                            ScratchPool& scratch);

}  // namespace volley
