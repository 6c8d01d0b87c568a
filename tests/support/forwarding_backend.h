#pragma once

#include <memory>
#include <utility>

#include "core/backend/backend.h"

namespace volley::test {

// Another backend under another class: for those that change a part of what it does.
class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(std::shared_ptr<const Backend> inner) : inner_(std::move(inner)) {}

  const DeviceInfo& info() const override { return inner_->info(); }
  std::unique_ptr<Queue> make_queue() const override { return inner_->make_queue(); }
  Buffer allocate(int64_t bytes) const override { return inner_->allocate(bytes); }
  int64_t allocated_bytes() const override { return inner_->allocated_bytes(); }
  int64_t peak_bytes() const override { return inner_->peak_bytes(); }
  CacheType cache_type(WeightType weights) const override { return inner_->cache_type(weights); }
  LinearWeight pack_linear(const HostView& weight, WeightType type) const override {
    return inner_->pack_linear(weight, type);
  }
  LinearWeight pack_quantized(const HostView& quants, const HostView& scales) const override {
    return inner_->pack_quantized(quants, scales);
  }
  ConvWeight pack_conv(const HostView& weight, const HostView& bias, WeightType type) const override {
    return inner_->pack_conv(weight, bias, type);
  }
  std::string_view packed_layout() const override { return inner_->packed_layout(); }
  PackedPlanes packed_planes(const LinearWeight& weight) const override {
    return inner_->packed_planes(weight);
  }
  LinearWeight map_linear(const MapLinearArgs& args) const override { return inner_->map_linear(args); }
  LinearWeight conv_as_linear(const ConvWeight& weight) const override {
    return inner_->conv_as_linear(weight);
  }
  ConvWeight conv_from_linear(const LinearWeight& weight, const HostView& bias,
                              const Shape& shape) const override {
    return inner_->conv_from_linear(weight, bias, shape);
  }
  PackedBytes linear_bytes(const Shape& shape, WeightType type) const override {
    return inner_->linear_bytes(shape, type);
  }
  PackedBytes conv_bytes(const Shape& shape, WeightType type) const override {
    return inner_->conv_bytes(shape, type);
  }
  std::unique_ptr<Queue> make_plan_queue(const Memory& memory) const override {
    return inner_->make_plan_queue(memory);
  }

 protected:
  const Backend& inner() const { return *inner_; }

 private:
  std::shared_ptr<const Backend> inner_;
};

}  // namespace volley::test
