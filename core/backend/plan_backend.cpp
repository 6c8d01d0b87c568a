#include "core/backend/plan_backend.h"

#include <atomic>
#include <bit>
#include <string>
#include <utility>
#include <vector>

#include "core/backend/plan_queue.h"
#include "core/base/error.h"

namespace volley {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kTile = 32;  // outputs, and inputs, that a panel is padded to

int64_t padded(int64_t count) {
  return (count + kTile - 1) / kTile * kTile;
}

// What cuda holds for single operations: rows of products and planes of convolutions, rounded to bf16. It
// grows by powers of two, and what was used stays.
class CardQueue : public PlanQueue {
 public:
  explicit CardQueue(const Backend& memory) : memory_(memory) {}

  void linear(const LinearArgs& args) override { round_rows(args.x, args.weight, 0); }
  void linears(const LinearsArgs& args) override { round_rows(args.x, *args.targets.front().weight, 0); }
  void feed_forward(const FeedForwardArgs& args) override {
    const LinearWeight& gate = *args.gates.linears.gate.weight;
    round_rows(args.gates.norm.x, gate, gate.out_features);
  }
  void conv2d(const Conv2dArgs& args) override {
    if (args.weight.type != WeightType::kF32) hold(args.x.size() * 2);
  }

 private:
  void round_rows(ConstTensor x, const LinearWeight& weight, int64_t more) {
    if (weight.type != WeightType::kF32)
      hold(x.size() / weight.in_features * (padded(weight.in_features) + padded(more)) * 2);
  }
  void hold(int64_t bytes) {
    if (!held_.empty() && held_.back().bytes() >= bytes) return;
    held_.push_back(memory_.allocate(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(bytes)))));
  }

  const Backend& memory_;
  std::vector<Buffer> held_;
};

class PlanBackend : public Backend {
 public:
  explicit PlanBackend(std::shared_ptr<const Backend> device) : device_(std::move(device)) {}

  const DeviceInfo& info() const override { return device_->info(); }
  std::unique_ptr<Queue> make_queue() const override {
    if (info().name.starts_with("cuda:")) return std::make_unique<CardQueue>(*this);
    return std::make_unique<PlanQueue>();
  }

  Buffer allocate(int64_t bytes) const override {
    const int64_t now = counts_->now += bytes;
    for (int64_t peak = counts_->peak; peak < now && !counts_->peak.compare_exchange_weak(peak, now);) {
    }
    // No two have the same address, and nobody follows it.
    const int64_t size = (bytes + kAlignment) / kAlignment * kAlignment;
    return {std::shared_ptr<std::byte>(reinterpret_cast<std::byte*>(counts_->next.fetch_add(size)),
                                       [counts = counts_, bytes](std::byte*) { counts->now -= bytes; }),
            bytes};
  }
  int64_t allocated_bytes() const override { return counts_->now; }
  int64_t peak_bytes() const override { return counts_->peak; }
  CacheType cache_type(WeightType weights) const override { return device_->cache_type(weights); }

  LinearWeight pack_linear(const HostView& weight, WeightType type) const override {
    return linear(weight.shape[0], weight.shape[1], type);
  }
  LinearWeight pack_quantized(const HostView& quants, const HostView&) const override {
    return linear(quants.shape[0], quants.shape[1], WeightType::kQ8_0);
  }
  ConvWeight pack_conv(const HostView& weight, const HostView&, WeightType type) const override {
    return conv(weight.shape, type);
  }

  std::string_view packed_layout() const override { return device_->packed_layout(); }
  PackedPlanes packed_planes(const LinearWeight&) const override { throw no_values(); }
  LinearWeight map_linear(const MapLinearArgs& args) const override {
    if (args.owner == nullptr) return linear(args.out_features, args.in_features, args.type);
    LinearWeight mapped{
        .type = args.type, .out_features = args.out_features, .in_features = args.in_features};
    mapped.data = allocate(0);
    mapped.scales = allocate(0);
    return mapped;
  }
  LinearWeight conv_as_linear(const ConvWeight&) const override { throw no_values(); }
  ConvWeight conv_from_linear(const LinearWeight& weight, const HostView&,
                              const Shape& shape) const override {
    ConvWeight made = conv({shape[0], 0, shape[2], shape[3]}, weight.type);
    made.in_channels = shape[1];
    made.data = weight.data;
    return made;
  }

 private:
  struct Counts {
    std::atomic<int64_t> now = 0;
    std::atomic<int64_t> peak = 0;
    std::atomic<int64_t> next = kAlignment;
  };

  static Error no_values() { return Error("a plan has no weights that could be written"); }

  static int64_t bytes_of(int64_t elements, WeightType type) {
    switch (type) {
      case WeightType::kF32:
        return elements * 4;
      case WeightType::kBF16:
        return elements * 2;
      case WeightType::kQ8_0:
        return elements;
      case WeightType::kQ4_1:
        return elements / 2;
    }
    return 0;
  }

  LinearWeight linear(int64_t out, int64_t in, WeightType type) const {
    LinearWeight weight{.type = type, .out_features = out, .in_features = in};
    // Panels of f32 are not padded in depth.
    const int64_t depth = type == WeightType::kF32 ? in : padded(in);
    weight.data = allocate(bytes_of(padded(out) * depth, type));
    // Of a block: a scale, and an offset of 4-bit ones.
    if (is_quantized(type))
      weight.scales = allocate(padded(out) * (depth / kTile) * (type == WeightType::kQ4_1 ? 4 : 2));
    return weight;
  }

  ConvWeight conv(const Shape& shape, WeightType type) const {
    const int64_t taps = shape[2] * shape[3];
    const bool is_padded = type != WeightType::kF32;
    const int64_t out = is_padded ? padded(shape[0]) : shape[0], in = is_padded ? padded(shape[1]) : shape[1];
    ConvWeight weight{.type = type,
                      .out_channels = shape[0],
                      .in_channels = shape[1],
                      .kernel_h = shape[2],
                      .kernel_w = shape[3]};
    weight.data = allocate(bytes_of(out * in * taps, type));
    weight.bias = allocate(padded(shape[0]) * 4);
    return weight;
  }

  std::shared_ptr<const Backend> device_;
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

}  // namespace

std::shared_ptr<const Backend> make_plan_backend(std::shared_ptr<const Backend> device) {
  return std::make_shared<PlanBackend>(std::move(device));
}

}  // namespace volley
