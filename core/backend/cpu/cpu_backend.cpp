#include "core/backend/cpu/cpu_backend.h"

#include <string>

#include "core/backend/cpu/convolution.h"
#include "core/backend/cpu/cpu_plan_queue.h"
#include "core/backend/cpu/cpu_queue.h"
#include "core/backend/cpu/grouped_convolution.h"
#include "core/backend/cpu/packed_weight.h"
#include "core/base/machine.h"

namespace volley {
namespace {

class CpuBackend : public Backend {
 public:
  CpuBackend(int64_t threads, ProductKernels kernels)
      : device_(std::make_shared<const CpuDevice>(threads, kernels)),
        info_{.name = "cpu",
              .description = describe_machine().processor + ", " + std::to_string(threads) +
                             (threads == 1 ? " thread" : " threads"),
              .has_bf16 = device_->products.has_native_bf16(),
              .has_blocks = true,
              .arithmetic = "cpu"} {}

  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<Queue> make_queue() const override { return std::make_unique<CpuQueue>(device_); }
  Buffer allocate(int64_t bytes) const override { return device_->memory.allocate(bytes); }
  int64_t allocated_bytes() const override { return device_->memory.allocated_bytes(); }
  int64_t peak_bytes() const override { return device_->memory.peak_bytes(); }
  LinearWeight pack_linear(const HostView& weight, WeightType type) const override {
    return device_->products.pack(weight, type, device_->memory, device_->threads);
  }
  LinearWeight pack_quantized(const HostView& quants, const HostView& scales) const override {
    return volley::pack_quantized(quants, scales, device_->memory, device_->threads);
  }
  std::string_view packed_layout() const override { return kPackedLayout; }
  PackedPlanes packed_planes(const LinearWeight& weight) const override { return planes_of(weight); }
  LinearWeight map_linear(const MapLinearArgs& args) const override {
    return map_weight(args, device_->memory);
  }
  LinearWeight conv_as_linear(const ConvWeight& weight) const override {
    return grouped_convolution_as_linear(weight);
  }
  ConvWeight conv_from_linear(const LinearWeight& weight, const HostView& bias,
                              const Shape& shape) const override {
    return grouped_convolution_from_linear(weight, bias, shape, device_->memory);
  }
  ConvWeight pack_conv(const HostView& weight, const HostView& bias, WeightType type) const override {
    VOLLEY_ASSERT(!is_quantized(type));
    return type == WeightType::kF32
               ? pack_convolution(weight, bias, device_->memory)
               : pack_grouped_convolution(weight, bias, device_->memory, device_->threads);
  }

  PackedBytes linear_bytes(const Shape& shape, WeightType type) const override {
    return device_->products.packed_bytes(shape, type);
  }
  PackedBytes conv_bytes(const Shape& shape, WeightType type) const override {
    return type == WeightType::kF32 ? convolution_bytes(shape) : grouped_convolution_bytes(shape);
  }
  std::unique_ptr<Queue> make_plan_queue(const Memory& memory) const override {
    return std::make_unique<CpuPlanQueue>(device_, memory);
  }

 private:
  std::shared_ptr<const CpuDevice> device_;
  DeviceInfo info_;
};

}  // namespace

std::shared_ptr<const Backend> make_cpu_backend(int64_t threads) {
  return make_cpu_backend(threads, ProductKernels::kBest);
}

std::shared_ptr<const Backend> make_cpu_backend(int64_t threads, ProductKernels kernels) {
  VOLLEY_ASSERT(threads >= 0);
  return std::make_shared<CpuBackend>(threads > 0 ? threads : physical_cores(), kernels);
}

}  // namespace volley
