#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "core/backend/backend.h"

namespace volley {

// What all calls of one kind of operation cost together.
struct OperationCost {
  int64_t calls = 0;
  double seconds = 0.0;
  int64_t rows = 0;           // of products and attention
  int64_t weight_bytes = 0;   // each call reads its weight once
  int64_t cache_bytes = 0;    // keys and values that attention reads, once for all rows of a sequence
  double operations = 0.0;    // multiplies and adds of products, convolutions and attention
  bool is_quantized = false;  // multiplies bytes, not floats

  void add(const OperationCost& other);
};

// Costs by kind. Kinds of products and convolutions name the weight's extents.
struct OperationProfile {
  std::map<std::string, OperationCost> costs;

  OperationCost total() const;
};

// A backend whose queues time every call and add it to `profile`. For backends that carry out an operation
// when it is called, with one queue in use at a time. Memory and packed weights are the inner backend's.
class ProfilingBackend : public Backend {
 public:
  ProfilingBackend(std::shared_ptr<const Backend> inner, std::shared_ptr<OperationProfile> profile)
      : inner_(std::move(inner)), profile_(std::move(profile)) {}

  const DeviceInfo& info() const override { return inner_->info(); }
  std::unique_ptr<Queue> make_queue() const override;
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

 private:
  std::shared_ptr<const Backend> inner_;
  std::shared_ptr<OperationProfile> profile_;
};

}  // namespace volley
