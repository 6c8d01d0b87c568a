#pragma once

// The products of one launch: up to four weights that multiply the same rows, cut into tiles of outputs.

#include "core/backend/cuda/device_math.cuh"
#include "core/backend/operations.h"

namespace volley::cuda {

inline constexpr int kMostTargets = 4;

struct ProductTarget {
  const std::byte* weight = nullptr;
  const std::byte* scales = nullptr;  // q8_0
  const float* bias = nullptr;
  float* out = nullptr;
  int64_t out_features = 0;
  unsigned first_tile = 0;

  // Adds the bias and what `out` holds, as asked, in that order.
  __device__ void store(int64_t row, int64_t n, float sum, Accumulate accumulate) const {
    store(row, n, sum, accumulate == Accumulate::kAdd ? out[row * out_features + n] : 0.0f, accumulate);
  }
  // The same where what `out` held was read before.
  __device__ void store(int64_t row, int64_t n, float sum, float before, Accumulate accumulate) const {
    if (bias != nullptr) sum += bias[n];
    out[row * out_features + n] = accumulate == Accumulate::kAdd ? before + sum : sum;
  }
};

inline ProductTarget product_target(const LinearTarget& target) {
  return {.weight = target.weight->data.data(),
          .scales = target.weight->scales.data(),
          .bias = target.bias.data,
          .out = target.out.data,
          .out_features = target.weight->out_features};
}

class ProductTargets {
 public:
  ProductTargets(const LinearsArgs& args, int64_t tile) {
    VOLLEY_ASSERT(args.targets.size() <= kMostTargets);
    for (const LinearTarget& target : args.targets) {
      targets_[count_] = product_target(target);
      targets_[count_++].first_tile = tiles_;
      tiles_ += blocks_of(target.weight->out_features, tile);
    }
  }

  unsigned tiles() const { return tiles_; }
  int count() const { return count_; }
  __host__ __device__ const ProductTarget& target(int index) const { return targets_[index]; }

  // The target that a tile of the launch belongs to, and which of its tiles it is.
  struct Place {
    const ProductTarget& target;
    int index;
    unsigned tile;
  };
  __device__ Place find(unsigned tile) const {
    int t = 0;
    while (t + 1 < count_ && tile >= targets_[t + 1].first_tile) ++t;
    return {targets_[t], t, tile - targets_[t].first_tile};
  }

 private:
  ProductTarget targets_[kMostTargets];
  int count_ = 0;
  unsigned tiles_ = 0;
};

// Two products whose outputs are joined: silu(gate) * up.
struct GatedTargets {
  explicit GatedTargets(const GatedLinearsArgs& args)
      : gate(product_target(args.gate)), up(product_target(args.up)), out(args.out.data) {
    VOLLEY_ASSERT(gate.out_features == up.out_features);
  }

  __device__ float joined(int64_t n, float gated, float raised) const {
    if (gate.bias != nullptr) gated += gate.bias[n];
    if (up.bias != nullptr) raised += up.bias[n];
    return silu(gated) * raised;
  }

  ProductTarget gate;
  ProductTarget up;
  float* out;
};

struct ProductRows {
  ProductRows(ConstTensor rows, const LinearWeight& weight, Accumulate accumulates)
      : x(rows.data),
        in_features(static_cast<int>(weight.in_features)),
        count(rows.size() / weight.in_features),
        accumulate(accumulates) {}
  ProductRows(const LinearsArgs& args, Accumulate accumulates)
      : ProductRows(args.x, *args.targets.front().weight, accumulates) {}

  const float* x;
  int in_features;
  int64_t count;
  Accumulate accumulate;
};

}  // namespace volley::cuda
