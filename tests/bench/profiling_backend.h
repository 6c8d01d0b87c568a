#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "core/backend/backend.h"
#include "tests/support/forwarding_backend.h"

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
class ProfilingBackend : public test::ForwardingBackend {
 public:
  ProfilingBackend(std::shared_ptr<const Backend> inner, std::shared_ptr<OperationProfile> profile)
      : ForwardingBackend(std::move(inner)), profile_(std::move(profile)) {}

  std::unique_ptr<Queue> make_queue() const override;

 private:
  std::shared_ptr<OperationProfile> profile_;
};

}  // namespace volley
