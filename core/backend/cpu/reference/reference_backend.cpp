#include "core/backend/cpu/reference/reference_backend.h"

#include <algorithm>
#include <cstring>

#include "core/backend/cpu/host_memory.h"
#include "core/backend/cpu/reference/reference_queue.h"
#include "core/backend/plan_queue.h"
#include "core/backend/q4_1.h"
#include "core/base/error.h"
#include "core/io/convert.h"

namespace volley {
namespace {

// Weights lie as in a checkpoint, row-major: f32, bf16, q8_0 quants [out, in padded to 32] and scales f32, or
// q4_1 quants as bytes and the scales and offsets f32, [2, out, blocks].
class ReferenceBackend : public Backend {
 public:
  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<Queue> make_queue() const override { return std::make_unique<ReferenceQueue>(); }
  Buffer allocate(int64_t bytes) const override { return memory_.allocate(bytes); }
  int64_t allocated_bytes() const override { return memory_.allocated_bytes(); }
  int64_t peak_bytes() const override { return memory_.peak_bytes(); }

  LinearWeight pack_linear(const HostView& weight, WeightType type) const override {
    VOLLEY_ASSERT(weight.shape.rank() == 2);
    if (type == WeightType::kQ4_1) return pack_four_bits(weight);
    const std::vector<float> values = to_f32(weight);
    if (first_non_finite(weight) >= 0) throw Error("weight with a value that is not finite");
    LinearWeight packed = allocate_linear(weight.shape, type);
    if (type == WeightType::kF32) {
      std::ranges::copy(values, reinterpret_cast<float*>(packed.data.data()));
      return packed;
    }
    if (type == WeightType::kQ8_0) {
      const int64_t rows = weight.shape[0], width = weight.shape[1], blocks = blocks_of(width);
      auto* quants = reinterpret_cast<int8_t*>(packed.data.data());
      auto* scales = reinterpret_cast<float*>(packed.scales.data());
      for (int64_t b = 0; b < rows * blocks; ++b) {
        const int64_t row = b / blocks, begin = b % blocks * kQ8BlockSize;
        const float* block = values.data() + row * width + begin;
        scales[b] = f16_to_f32(
            quantize_weight_block(block, std::min(kQ8BlockSize, width - begin), quants + b * kQ8BlockSize));
      }
      return packed;
    }
    auto* out = reinterpret_cast<uint16_t*>(packed.data.data());
    for (size_t i = 0; i < values.size(); ++i) out[i] = f32_to_bf16(values[i]);
    return packed;
  }

  LinearWeight pack_quantized(const HostView& quants, const HostView& scales) const override {
    LinearWeight packed = allocate_linear(quants.shape, WeightType::kQ8_0);
    std::memcpy(packed.data.data(), quants.data, static_cast<size_t>(quants.bytes()));
    std::ranges::copy(to_f32(scales), reinterpret_cast<float*>(packed.scales.data()));
    return packed;
  }

  // The oracle has no files of its own.
  std::string_view packed_layout() const override { return {}; }
  PackedPlanes packed_planes(const LinearWeight&) const override { throw no_layout(); }
  LinearWeight map_linear(const MapLinearArgs&) const override { throw no_layout(); }
  LinearWeight conv_as_linear(const ConvWeight&) const override { throw no_layout(); }
  ConvWeight conv_from_linear(const LinearWeight&, const HostView&, const Shape&) const override {
    throw no_layout();
  }

  ConvWeight pack_conv(const HostView& weight, const HostView& bias, WeightType type) const override {
    VOLLEY_ASSERT(weight.shape.rank() == 4);
    const int64_t out_channels = weight.shape[0];
    std::vector<float> bias_values(static_cast<size_t>(out_channels), 0.0f);
    if (bias.data != nullptr) bias_values = to_f32(bias);
    std::vector<float> values = to_f32(weight);
    if (type == WeightType::kBF16) {
      for (float& value : values) value = bf16_to_f32(f32_to_bf16(value));
    }
    return {.data = copy(values),
            .bias = copy(bias_values),
            .type = type,
            .out_channels = out_channels,
            .in_channels = weight.shape[1],
            .kernel_h = weight.shape[2],
            .kernel_w = weight.shape[3]};
  }

  PackedBytes linear_bytes(const Shape& shape, WeightType type) const override {
    const int64_t blocks = shape[0] * blocks_of(shape[1]);
    switch (type) {
      case WeightType::kF32:
        return {.data = shape.size() * 4};
      case WeightType::kBF16:
        return {.data = shape.size() * 2};
      case WeightType::kQ8_0:
        return {.data = blocks * kQ8BlockSize, .beside = blocks * 4};
      case WeightType::kQ4_1:
        return {.data = blocks * kQ8BlockSize, .beside = 2 * blocks * 4};
    }
    return {};
  }
  PackedBytes conv_bytes(const Shape& shape, WeightType) const override {
    return {.data = shape.size() * 4, .beside = shape[0] * 4};
  }
  std::unique_ptr<Queue> make_plan_queue(const Memory&) const override {
    return std::make_unique<PlanQueue>();
  }

 private:
  static int64_t blocks_of(int64_t width) { return (width + kQ8BlockSize - 1) / kQ8BlockSize; }

  LinearWeight allocate_linear(const Shape& shape, WeightType type) const {
    const PackedBytes bytes = linear_bytes(shape, type);
    LinearWeight made{.type = type, .out_features = shape[0], .in_features = shape[1]};
    made.data = memory_.allocate(bytes.data);
    if (is_quantized(type)) made.scales = memory_.allocate(bytes.beside);
    return made;
  }

  LinearWeight pack_four_bits(const HostView& weight) const {
    const int64_t rows = weight.shape[0], width = weight.shape[1];
    LinearWeight packed = allocate_linear(weight.shape, WeightType::kQ4_1);
    FourBitRow row(width);
    auto* scales = reinterpret_cast<float*>(packed.scales.data());
    for (int64_t n = 0; n < rows; ++n) {
      read_four_bit_row(weight, n, row);
      std::memcpy(packed.data.data() + n * std::ssize(row.quants), row.quants.data(), row.quants.size());
      for (int64_t b = 0; b < row.blocks; ++b) {
        scales[n * row.blocks + b] = f16_to_f32(row.scales[static_cast<size_t>(b)]);
        scales[(rows + n) * row.blocks + b] = f16_to_f32(row.offsets[static_cast<size_t>(b)]);
      }
    }
    return packed;
  }

  static Error no_layout() { return Error("cpu-reference neither reads nor writes packed weights"); }

  Buffer copy(const std::vector<float>& values) const {
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(float));
    Buffer buffer = memory_.allocate(bytes);
    std::memcpy(buffer.data(), values.data(), static_cast<size_t>(bytes));
    return buffer;
  }

  HostMemory memory_;
  DeviceInfo info_{.name = "cpu-reference",
                   .description = "plain loops, one thread",
                   .has_bf16 = false,
                   .has_blocks = true,
                   .arithmetic = "cpu-reference"};
};

}  // namespace

std::shared_ptr<const Backend> make_reference_backend() {
  return std::make_shared<ReferenceBackend>();
}

}  // namespace volley
