#include "core/backend/plan_backend.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "core/base/error.h"

namespace volley {
namespace {

constexpr int64_t kAlignment = 64;

// Memory without an end, which nobody can use.
class PlanMemory : public Memory {
 public:
  Buffer allocate(int64_t bytes) const override {
    const int64_t size = std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
    const int64_t now = counts_->now += size;
    for (int64_t peak = counts_->peak; peak < now && !counts_->peak.compare_exchange_weak(peak, now);) {
    }
    // No two have the same address, and nobody follows it.
    return {std::shared_ptr<std::byte>(reinterpret_cast<std::byte*>(counts_->next.fetch_add(size)),
                                       [counts = counts_, size](std::byte*) { counts->now -= size; }),
            bytes};
  }
  int64_t allocated_bytes() const { return counts_->now; }
  int64_t peak_bytes() const { return counts_->peak; }

 private:
  struct Counts {
    std::atomic<int64_t> now = 0;
    std::atomic<int64_t> peak = 0;
    std::atomic<int64_t> next = kAlignment;
  };
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

class PlanBackend : public Backend {
 public:
  explicit PlanBackend(std::shared_ptr<const Backend> device) : device_(std::move(device)) {}

  const DeviceInfo& info() const override { return device_->info(); }
  std::unique_ptr<Queue> make_queue() const override { return device_->make_plan_queue(memory_); }

  Buffer allocate(int64_t bytes) const override { return memory_.allocate(bytes); }
  int64_t allocated_bytes() const override { return memory_.allocated_bytes(); }
  int64_t peak_bytes() const override { return memory_.peak_bytes(); }
  CacheType cache_type(WeightType weights) const override { return device_->cache_type(weights); }

  LinearWeight pack_linear(const HostView& weight, WeightType type) const override {
    return linear(weight.shape, type);
  }
  LinearWeight pack_quantized(const HostView& quants, const HostView&) const override {
    return linear(quants.shape, WeightType::kQ8_0);
  }
  ConvWeight pack_conv(const HostView& weight, const HostView&, WeightType type) const override {
    const PackedBytes bytes = conv_bytes(weight.shape, type);
    const Buffer packing = allocate(bytes.packing);
    ConvWeight made = conv(weight.shape, type, bytes.beside);
    made.data = allocate(bytes.data);
    return made;
  }

  std::string_view packed_layout() const override { return device_->packed_layout(); }
  PackedPlanes packed_planes(const LinearWeight&) const override { throw no_values(); }
  LinearWeight map_linear(const MapLinearArgs& args) const override {
    if (args.owner == nullptr) return linear({args.out_features, args.in_features}, args.type);
    LinearWeight mapped{
        .type = args.type, .out_features = args.out_features, .in_features = args.in_features};
    mapped.data = allocate(0);
    mapped.scales = allocate(0);
    return mapped;
  }
  LinearWeight conv_as_linear(const ConvWeight&) const override { throw no_values(); }
  ConvWeight conv_from_linear(const LinearWeight& weight, const HostView&,
                              const Shape& shape) const override {
    ConvWeight made = conv(shape, weight.type, conv_bytes(shape, weight.type).beside);
    made.data = weight.data;
    return made;
  }

  PackedBytes linear_bytes(const Shape& shape, WeightType type) const override {
    return device_->linear_bytes(shape, type);
  }
  PackedBytes conv_bytes(const Shape& shape, WeightType type) const override {
    return device_->conv_bytes(shape, type);
  }
  std::unique_ptr<Queue> make_plan_queue(const Memory& memory) const override {
    return device_->make_plan_queue(memory);
  }

 private:
  static Error no_values() { return Error("a plan has no weights that could be written"); }

  LinearWeight linear(const Shape& shape, WeightType type) const {
    const PackedBytes bytes = linear_bytes(shape, type);
    const Buffer packing = allocate(bytes.packing);
    LinearWeight weight{.type = type, .out_features = shape[0], .in_features = shape[1]};
    weight.data = allocate(bytes.data);
    if (is_quantized(type)) weight.scales = allocate(bytes.beside);
    return weight;
  }

  ConvWeight conv(const Shape& shape, WeightType type, int64_t bias_bytes) const {
    return {.bias = allocate(bias_bytes),
            .type = type,
            .out_channels = shape[0],
            .in_channels = shape[1],
            .kernel_h = shape[2],
            .kernel_w = shape[3]};
  }

  std::shared_ptr<const Backend> device_;
  PlanMemory memory_;
};

}  // namespace

std::shared_ptr<const Backend> make_plan_backend(std::shared_ptr<const Backend> device) {
  return std::make_shared<PlanBackend>(std::move(device));
}

}  // namespace volley
