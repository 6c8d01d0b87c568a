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
  int64_t rows = 0;          // of products and attention
  int64_t weight_bytes = 0;  // each call reads its weight once
  double operations = 0.0;   // multiplies and adds of products and convolutions

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
  LinearWeight pack_linear(const HostView& weight, WeightType type) const override {
    return inner_->pack_linear(weight, type);
  }
  ConvWeight pack_conv(const HostView& weight, const HostView& bias) const override {
    return inner_->pack_conv(weight, bias);
  }

 private:
  std::shared_ptr<const Backend> inner_;
  std::shared_ptr<OperationProfile> profile_;
};

}  // namespace volley
