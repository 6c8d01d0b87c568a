#pragma once

#include <memory>
#include <span>

#include "core/backend/backend.h"
#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/host_memory.h"
#include "core/backend/cpu/panel_products.h"
#include "core/backend/cpu/scratch_pool.h"
#include "core/base/thread_pool.h"

namespace volley {

// Which kernels multiply: the best of the processor, or a lesser choice for tests and benchmarks. Never
// depends on a row count.
enum class ProductKernels : uint8_t {
  kBest,    // f32: oneDNN where its bits do not depend on the row count. bf16, q8_0: AMX, else as below
  kAvx512,  // f32: own. bf16, q8_0: AVX-512's dot products where there, else as below
  kVector,  // own kernels of whatever vector width
};

// Products of rows with packed weights. A weight is cut into panels, rows into slices of kSliceRows; panels
// and slices are shared among threads.
class LinearProducts {
 public:
  explicit LinearProducts(ProductKernels kernels);

  // True where the processor multiplies bf16 itself.
  bool has_native_bf16() const;
  const GroupedProducts& grouped() const { return *grouped_; }

  LinearWeight pack(const HostView& weight, WeightType type, const HostMemory& memory,
                    ThreadPool& threads) const;
  // What a weight [out, in] takes when it is packed.
  PackedBytes packed_bytes(const Shape& shape, WeightType type) const;
  void run(const LinearArgs& args, ThreadPool& threads, ScratchPool& scratch) const;
  // One loop of the threads for all targets.
  void run(const LinearsArgs& args, ThreadPool& threads, ScratchPool& scratch) const;
  // Several operations in one loop, where that is no slower; false, and nothing done, otherwise.
  bool run(const NormedLinearsArgs& args, ThreadPool& threads, ScratchPool& scratch) const;
  bool run(const GatedLinearsArgs& args, ThreadPool& threads, ScratchPool& scratch) const;
  bool run(const NormedGatedLinearsArgs& args, ThreadPool& threads, ScratchPool& scratch) const;
  // Takes of `scratch` what `run` takes of it on so many threads, and gives it back; a norm makes no
  // difference.
  void reserve(const LinearArgs& args, int64_t threads, ScratchPool& scratch) const;
  void reserve(const LinearsArgs& args, int64_t threads, ScratchPool& scratch) const;
  void reserve(const GatedLinearsArgs& args, int64_t threads, ScratchPool& scratch) const;

 private:
  LinearWeight pack_f32(const HostView& weight, const HostMemory& memory) const;
  void run_f32(const LinearArgs& args, ThreadPool& threads, ScratchPool& scratch) const;

  std::unique_ptr<const PanelProducts> f32_;
  std::unique_ptr<const GroupedProducts> grouped_;
};

}  // namespace volley
