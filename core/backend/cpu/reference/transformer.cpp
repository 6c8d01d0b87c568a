// Reference operations of transformer layers.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/backend/cpu/reference/reference_queue.h"
#include "core/backend/q4_1.h"

namespace volley {

void ReferenceQueue::gather_rows(const GatherRowsArgs& args) {
  const int64_t width = args.table.shape[-1];
  for (int64_t r = 0; r < args.ids.size(); ++r) {
    const int32_t id = args.ids.data[r];
    if (id < 0) continue;
    VOLLEY_ASSERT(id < args.table.shape[0]);
    std::memcpy(args.out.data + r * width, args.table.data + id * width,
                static_cast<size_t>(width) * sizeof(float));
  }
}

void ReferenceQueue::gather_weight_rows(const GatherWeightRowsArgs& args) {
  const LinearWeight& weight = args.weight;
  VOLLEY_ASSERT(is_quantized(weight.type));
  const int64_t width = weight.in_features, blocks = (width + kQ8BlockSize - 1) / kQ8BlockSize;
  const auto* scales = reinterpret_cast<const float*>(weight.scales.data());
  const float* offsets = scales + weight.out_features * blocks;
  for (int64_t r = 0; r < args.ids.size(); ++r) {
    const int32_t id = args.ids.data[r];
    if (id < 0) continue;
    VOLLEY_ASSERT(id < weight.out_features);
    for (int64_t k = 0; k < width; ++k) {
      const int64_t block = id * blocks + k / kQ8BlockSize;
      const std::byte byte = weight.data.data()[id * blocks * kQ8BlockSize + k];
      args.out.data[r * width + k] =
          weight.type == WeightType::kQ8_0
              ? static_cast<float>(static_cast<int8_t>(byte)) * scales[block]
              : static_cast<float>(static_cast<uint8_t>(byte)) * scales[block] + offsets[block];
    }
  }
}

void ReferenceQueue::copy(const CopyArgs& args) {
  std::copy(args.x.data, args.x.data + args.x.size(), args.out.data);
}

void ReferenceQueue::add_rows(const AddRowsArgs& args) {
  const int64_t width = args.table.shape[-1];
  for (int64_t r = 0; r < args.ids.size(); ++r) {
    const int32_t id = args.ids.data[r];
    if (id < 0) continue;
    VOLLEY_ASSERT(id < args.table.shape[0]);
    for (int64_t i = 0; i < width; ++i) args.out.data[r * width + i] += args.table.data[id * width + i];
  }
}

void ReferenceQueue::rms_norm(const RmsNormArgs& args) {
  const int64_t width = args.weight.size();
  const int64_t rows = args.x.size() / width;
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = args.x.data + r * width;
    float* out = args.out.data + r * width;
    float sum = 0.0f;
    for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(width) + args.eps);
    for (int64_t i = 0; i < width; ++i) out[i] = x[i] * scale * args.weight.data[i];
  }
}

void ReferenceQueue::layer_norm(const LayerNormArgs& args) {
  const int64_t width = args.weight.size();
  const int64_t rows = args.x.size() / width;
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = args.x.data + r * width;
    float* out = args.out.data + r * width;
    float sum = 0.0f;
    for (int64_t i = 0; i < width; ++i) sum += x[i];
    const float mean = sum / static_cast<float>(width);
    float squares = 0.0f;
    for (int64_t i = 0; i < width; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(width) + args.eps);
    for (int64_t i = 0; i < width; ++i) {
      out[i] = (x[i] - mean) * scale * args.weight.data[i] + args.bias.data[i];
    }
  }
}

namespace {

// Row `n` of a q8_0 weight times a row: block by block, an exact integer sum times both scales, added by one
// multiply-add.
float multiply_q8_0(const LinearWeight& weight, int64_t n, std::span<const int8_t> quants,
                    std::span<const float> scales) {
  const auto blocks = static_cast<int64_t>(scales.size());
  const auto* weights = reinterpret_cast<const int8_t*>(weight.data.data()) + n * blocks * kQ8BlockSize;
  const auto* weight_scales = reinterpret_cast<const float*>(weight.scales.data()) + n * blocks;
  float sum = 0.0f;
  for (int64_t b = 0; b < blocks; ++b) {
    int32_t dot = 0;
    for (int64_t k = b * kQ8BlockSize; k < (b + 1) * kQ8BlockSize; ++k) dot += weights[k] * quants[k];
    sum = std::fma(static_cast<float>(dot), weight_scales[b] * scales[b], sum);
  }
  return sum;
}

// The same of a q4_1 weight; `sums` are the row sums of q4_1.h.
float multiply_q4_1(const LinearWeight& weight, int64_t n, std::span<const int8_t> quants,
                    std::span<const float> scales, std::span<const float> sums) {
  const auto blocks = static_cast<int64_t>(scales.size());
  const auto* weights = reinterpret_cast<const uint8_t*>(weight.data.data()) + n * blocks * kQ8BlockSize;
  const auto* weight_scales = reinterpret_cast<const float*>(weight.scales.data()) + n * blocks;
  const float* offsets = weight_scales + weight.out_features * blocks;
  float sum = 0.0f;
  for (int64_t b = 0; b < blocks; ++b) {
    int32_t dot = 0;
    for (int64_t k = b * kQ8BlockSize; k < (b + 1) * kQ8BlockSize; ++k) dot += weights[k] * quants[k];
    sum = std::fma(static_cast<float>(dot), weight_scales[b] * scales[b], sum);
    sum = std::fma(offsets[b], sums[b], sum);
  }
  return sum;
}

void linear_quantized(const LinearArgs& args) {
  const int64_t in = args.weight.in_features, out = args.weight.out_features;
  const int64_t blocks = (in + kQ8BlockSize - 1) / kQ8BlockSize;
  std::vector<int8_t> quants(static_cast<size_t>(blocks * kQ8BlockSize));
  std::vector<float> scales(static_cast<size_t>(blocks)), sums(static_cast<size_t>(blocks));
  for (int64_t r = 0; r < args.out.size() / out; ++r) {
    for (int64_t b = 0; b < blocks; ++b) {
      scales[b] =
          quantize_row_block(args.x.data + r * in + b * kQ8BlockSize,
                             std::min(kQ8BlockSize, in - b * kQ8BlockSize), quants.data() + b * kQ8BlockSize);
      sums[b] = quant_row_sum(quants.data() + b * kQ8BlockSize, scales[b]);
    }
    for (int64_t n = 0; n < out; ++n) {
      float sum = args.weight.type == WeightType::kQ8_0 ? multiply_q8_0(args.weight, n, quants, scales)
                                                        : multiply_q4_1(args.weight, n, quants, scales, sums);
      if (args.bias.data != nullptr) sum += args.bias.data[n];
      float& y = args.out.data[r * out + n];
      y = args.accumulate == Accumulate::kAdd ? y + sum : sum;
    }
  }
}

}  // namespace

void ReferenceQueue::linear(const LinearArgs& args) {
  if (is_quantized(args.weight.type)) return linear_quantized(args);
  const int64_t in = args.weight.in_features;
  const int64_t out = args.weight.out_features;
  const int64_t rows = args.out.size() / out;
  VOLLEY_ASSERT(args.x.size() == rows * in);
  const auto* f32 = reinterpret_cast<const float*>(args.weight.data.data());
  const auto* bf16 = reinterpret_cast<const uint16_t*>(args.weight.data.data());
  const bool is_bf16 = args.weight.type == WeightType::kBF16;
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = args.x.data + r * in;
    for (int64_t n = 0; n < out; ++n) {
      float sum = 0.0f;
      for (int64_t k = 0; k < in; ++k) {
        // bf16 products round both factors to bf16 and add in f32, as the hardware does.
        sum +=
            is_bf16 ? bf16_to_f32(f32_to_bf16(x[k])) * bf16_to_f32(bf16[n * in + k]) : x[k] * f32[n * in + k];
      }
      if (args.bias.data != nullptr) sum += args.bias.data[n];
      float& y = args.out.data[r * out + n];
      y = args.accumulate == Accumulate::kAdd ? y + sum : sum;
    }
  }
}

void ReferenceQueue::linears(const LinearsArgs& args) {
  for (const LinearTarget& target : args.targets) {
    linear(
        {.x = args.x, .weight = *target.weight, .bias = target.bias, .phase = args.phase, .out = target.out});
  }
}

namespace {

float activated(Activation activation, float x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0f + std::exp(-x));
    case Activation::kGeluErf:
      return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + std::tanh(0.7978845608028654f * (x + 0.044715f * x * x * x)));
  }
  return x;
}

}  // namespace

void ReferenceQueue::activate(const ActivateArgs& args) {
  for (int64_t i = 0; i < args.x.size(); ++i) args.x.data[i] = activated(args.activation, args.x.data[i]);
}

void ReferenceQueue::silu_mul(const SiluMulArgs& args) {
  for (int64_t i = 0; i < args.out.size(); ++i) {
    args.out.data[i] = activated(Activation::kSilu, args.gate.data[i]) * args.up.data[i];
  }
}

void ReferenceQueue::add(const AddArgs& args) {
  for (int64_t i = 0; i < args.out.size(); ++i) args.out.data[i] = args.a.data[i] + args.b.data[i];
}

void ReferenceQueue::rope(const RopeArgs& args) {
  const int64_t rows = args.x.shape[0], heads = args.x.shape[1], width = args.x.shape[2];
  const int64_t half = width / 2;
  const int64_t components = args.positions.size() / rows;
  const int64_t columns = half / components;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      float* x = args.x.data + (r * heads + h) * width;
      for (int64_t i = 0; i < half; ++i) {
        const int64_t position = args.positions.data[r * components + i / columns];
        VOLLEY_ASSERT(position >= 0 && position < args.cos.shape[0]);
        const float c = args.cos.data[position * columns + i % columns];
        const float s = args.sin.data[position * columns + i % columns];
        float& a = args.layout == RopeLayout::kAdjacent ? x[2 * i] : x[i];
        float& b = args.layout == RopeLayout::kAdjacent ? x[2 * i + 1] : x[half + i];
        const float turned = a * c - b * s;
        b = b * c + a * s;
        a = turned;
      }
    }
  }
}

void ReferenceQueue::upload(const void* host, void* device, int64_t bytes) {
  if (bytes > 0) std::memcpy(device, host, static_cast<size_t>(bytes));
}

void ReferenceQueue::download(const void* device, void* host, int64_t bytes) {
  if (bytes > 0) std::memcpy(host, device, static_cast<size_t>(bytes));
}

}  // namespace volley
