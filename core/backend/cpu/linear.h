#pragma once

#include <array>
#include <memory>

#include "core/backend/backend.h"
#include "core/backend/cpu/panel_products.h"
#include "core/backend/cpu/scratch_pool.h"
#include "core/base/thread_pool.h"

namespace volley {

// Which kernels multiply: chosen once, by build option and processor, for each storage type.
enum class ProductKernels : uint8_t { kLibraryWherePossible, kOwn };

// Products of rows with packed weights. A weight is cut into panels whose width depends on its shape alone, rows into
// slices of kSliceRows; panels and slices are shared among threads.
class LinearProducts {
 public:
  explicit LinearProducts(ProductKernels kernels);

  // True where a library kernel of this processor multiplies bf16.
  bool has_native_bf16() const { return library_bf16_ != nullptr; }

  LinearWeight pack(const HostView& weight, WeightType type, const HostMemory& memory) const;
  void run(const LinearArgs& args, ThreadPool& threads, ScratchPool& scratch) const;

 private:
  const PanelProducts& kernels(WeightType type) const;

  std::unique_ptr<const PanelProducts> own_ = make_own_products();
  std::unique_ptr<const PanelProducts> library_f32_;
  std::unique_ptr<const PanelProducts> library_bf16_;
};

}  // namespace volley
