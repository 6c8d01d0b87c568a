#include "core/backend/cpu/packed_weight.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string>

#include "core/backend/cpu/elementwise.h"
#include "core/backend/cpu/parallel.h"
#include "core/backend/q4_1.h"
#include "core/base/error.h"
#include "core/io/convert.h"

namespace volley {
namespace {

// Values that are read at once: whole steps, and whole blocks of every block type.
constexpr int64_t kPiece = 256;
static_assert(kPiece % kDepthStep == 0);

// Values [begin, begin + count) of the weight, which begin and end with a row or a piece of it.
void read_values(const HostView& weight, int64_t begin, int64_t count, float* out) {
  const HostView part{weight.data + dtype_bytes(weight.dtype, begin), weight.dtype, {count}};
  copy_to_f32(part, out);
}

void require_finite(std::span<const float> values) {
  float differences = 0.0f;  // x - x is 0 for finite numbers alone
  for (const float value : values) differences += value - value;
  if (differences != 0.0f) throw Error("weight with a value that is not finite");
}

// Writes 32 values of a feature into its group's panel.
void place_bf16(const float* values, int64_t depth, int64_t column, std::byte* group) {
  std::array<uint16_t, kDepthStep> rounded;
  convert_to_bf16(values, kDepthStep, rounded.data());
  for (int64_t k = 0; k < kDepthStep; k += 2) {
    std::memcpy(group + ((depth + k) / 2 * kGroupColumns + column) * 4, rounded.data() + k, 4);
  }
}

void place_quants(const int8_t* quants, int64_t depth, int64_t column, std::byte* group) {
  for (int64_t k = 0; k < kDepthStep; k += 4) {
    std::memcpy(group + ((depth + k) / 4 * kGroupColumns + column) * 4, quants + k, 4);
  }
}

void place_four_bits(const uint8_t* quants, int64_t depth, int64_t column, std::byte* group) {
  for (int64_t k = 0; k < kDepthStep; k += 8) {
    std::byte* quad = group + ((depth + k) / 8 * kGroupColumns + column) * 4;
    for (int64_t i = 0; i < 4; ++i) quad[i] = static_cast<std::byte>(quants[k + i] | quants[k + 4 + i] << 4);
  }
}

LinearWeight allocate_packed(int64_t out_features, int64_t in_features, WeightType type,
                             const HostMemory& memory) {
  const PackedExtents extents(out_features, in_features, type);
  LinearWeight packed{.type = type, .out_features = out_features, .in_features = in_features};
  packed.data = memory.allocate_lasting(extents.panel_bytes());
  if (is_quantized(type)) packed.scales = memory.allocate_lasting(extents.scale_bytes());
  return packed;
}

// Calls body(group, first feature, features of the group) for all groups, on all threads.
template <typename Body>
void for_each_group(const PackedExtents& extents, int64_t out_features, ThreadPool& threads,
                    const Body& body) {
  const double guess = static_cast<double>(extents.groups * extents.depth * kGroupColumns);
  share_items(threads, extents.groups, guess, [&](int64_t group) {
    const int64_t first = group * kGroupColumns;
    body(group, first, std::min(kGroupColumns, out_features - first));
  });
}

LinearWeight pack_four_bits(const HostView& weight, const HostMemory& memory, ThreadPool& threads) {
  const int64_t out_features = weight.shape[0], in_features = weight.shape[1];
  const PackedExtents extents(out_features, in_features, WeightType::kQ4_1);
  LinearWeight packed = allocate_packed(out_features, in_features, WeightType::kQ4_1, memory);
  auto* scales = reinterpret_cast<uint16_t*>(packed.scales.data());
  for_each_group(extents, out_features, threads, [&](int64_t group, int64_t first, int64_t count) {
    std::byte* panel = packed.data.data() + group * extents.group_bytes();
    uint16_t* group_scales = scales + group * extents.group_scales();
    FourBitRow row(in_features);
    for (int64_t c = 0; c < kGroupColumns; ++c) {
      if (c < count) {
        read_four_bit_row(weight, first + c, row);
      } else {
        row = FourBitRow(in_features);
      }
      for (int64_t b = 0; b < row.blocks; ++b) {
        place_four_bits(row.quants.data() + b * kDepthStep, b * kDepthStep, c, panel);
        group_scales[2 * b * kGroupColumns + c] = row.scales[static_cast<size_t>(b)];
        group_scales[(2 * b + 1) * kGroupColumns + c] = row.offsets[static_cast<size_t>(b)];
      }
    }
  });
  return packed;
}

}  // namespace

LinearWeight pack_weight(const HostView& weight, WeightType type, const HostMemory& memory,
                         ThreadPool& threads) {
  VOLLEY_ASSERT(weight.shape.rank() == 2 && type != WeightType::kF32);
  if (type == WeightType::kQ4_1) return pack_four_bits(weight, memory, threads);
  const int64_t out_features = weight.shape[0], in_features = weight.shape[1];
  const PackedExtents extents(out_features, in_features, type);
  LinearWeight packed = allocate_packed(out_features, in_features, type, memory);
  auto* scales = reinterpret_cast<uint16_t*>(packed.scales.data());
  for_each_group(extents, out_features, threads, [&](int64_t group, int64_t first, int64_t count) {
    std::byte* panel = packed.data.data() + group * extents.group_bytes();
    std::array<float, kPiece> piece;
    for (int64_t c = 0; c < kGroupColumns; ++c) {
      for (int64_t k = 0; k < extents.depth; k += kDepthStep) {
        if (k % kPiece == 0) {
          piece.fill(0.0f);
          const int64_t size = std::min(kPiece, in_features - k);
          if (c < count) {
            read_values(weight, (first + c) * in_features + k, size, piece.data());
            require_finite(std::span(piece).first(static_cast<size_t>(size)));
          }
        }
        const float* values = piece.data() + k % kPiece;
        if (type == WeightType::kBF16) {
          place_bf16(values, k, c, panel);
        } else {
          std::array<int8_t, kDepthStep> quants;
          scales[group * extents.group_scales() + k / kDepthStep * kGroupColumns + c] =
              quantize_weight_block(values, kDepthStep, quants.data());
          place_quants(quants.data(), k, c, panel);
        }
      }
    }
  });
  return packed;
}

LinearWeight pack_quantized(const HostView& quants, const HostView& scales, const HostMemory& memory,
                            ThreadPool& threads) {
  VOLLEY_ASSERT(quants.shape.rank() == 2 && quants.shape[1] % kDepthStep == 0);
  VOLLEY_ASSERT(scales.shape == Shape({quants.shape[0], quants.shape[1] / kDepthStep}));
  const int64_t out_features = quants.shape[0], in_features = quants.shape[1];
  const PackedExtents extents(out_features, in_features, WeightType::kQ8_0);
  if (first_non_finite(scales) >= 0) throw Error("weight with a scale that is not finite");
  LinearWeight packed = allocate_packed(out_features, in_features, WeightType::kQ8_0, memory);
  auto* packed_scales = reinterpret_cast<uint16_t*>(packed.scales.data());
  const int64_t blocks = in_features / kDepthStep;
  for_each_group(extents, out_features, threads, [&](int64_t group, int64_t first, int64_t count) {
    std::byte* panel = packed.data.data() + group * extents.group_bytes();
    uint16_t* group_scales = packed_scales + group * extents.group_scales();
    for (int64_t c = 0; c < kGroupColumns; ++c) {
      for (int64_t b = 0; b < blocks; ++b) {
        std::array<int8_t, kDepthStep> block{};
        uint16_t scale = 0;
        if (c < count) {
          std::memcpy(block.data(), quants.data + (first + c) * in_features + b * kDepthStep, kDepthStep);
          std::memcpy(&scale, scales.data + ((first + c) * blocks + b) * 2, 2);
        }
        place_quants(block.data(), b * kDepthStep, c, panel);
        group_scales[b * kGroupColumns + c] = scale;
      }
    }
  });
  return packed;
}

void unpack_row(const LinearWeight& weight, int64_t n, float* out) {
  VOLLEY_ASSERT(is_quantized(weight.type) && n < weight.out_features);
  const PackedExtents extents(weight.out_features, weight.in_features, weight.type);
  const int64_t group = n / kGroupColumns, column = n % kGroupColumns;
  const std::byte* panel = weight.data.data() + group * extents.group_bytes();
  const auto* scales =
      reinterpret_cast<const uint16_t*>(weight.scales.data()) + group * extents.group_scales();
  const bool is_q8_0 = weight.type == WeightType::kQ8_0;
  for (int64_t k = 0; k < weight.in_features; ++k) {
    const int64_t block = k / kDepthStep * extents.block_scales();
    const float scale = f16_to_f32(scales[block * kGroupColumns + column]);
    const std::byte byte = panel[(k / extents.neighbours() * kGroupColumns + column) * 4 + k % 4];
    if (is_q8_0) {
      out[k] = static_cast<float>(static_cast<int8_t>(byte)) * scale;
    } else {
      const auto quant = static_cast<uint8_t>(k % 8 < 4 ? byte & std::byte{0x0f} : byte >> 4);
      out[k] = static_cast<float>(quant) * scale + f16_to_f32(scales[(block + 1) * kGroupColumns + column]);
    }
  }
}

PackedPlanes planes_of(const LinearWeight& weight) {
  const PackedExtents extents(weight.out_features, weight.in_features, weight.type);
  PackedPlanes planes{.panels = {weight.data.data(), extents.panel_dtype(), extents.panel_shape()}};
  if (is_quantized(weight.type)) planes.scales = {weight.scales.data(), DType::kF16, extents.scale_shape()};
  return planes;
}

namespace {

// The plane's bytes as a buffer: where they lie, or copied.
Buffer plane_buffer(const HostView& plane, const std::shared_ptr<const void>& owner,
                    const HostMemory& memory) {
  constexpr uintptr_t kAlignment = 64;
  if (owner != nullptr && reinterpret_cast<uintptr_t>(plane.data) % kAlignment == 0) {
    // Weights are only read: the buffer's type has no word for that.
    return {std::shared_ptr<std::byte>(owner, const_cast<std::byte*>(plane.data)), plane.bytes()};
  }
  Buffer copy = memory.allocate_lasting(plane.bytes());
  std::memcpy(copy.data(), plane.data, static_cast<size_t>(plane.bytes()));
  return copy;
}

void require_plane(const HostView& plane, DType dtype, const Shape& shape, const char* what) {
  if (plane.dtype == dtype && plane.shape == shape) return;
  throw Error(std::string(what) + ": expected " + std::string(dtype_name(dtype)) + " " + shape.to_string() +
              ", found " + std::string(dtype_name(plane.dtype)) + " " + plane.shape.to_string());
}

}  // namespace

LinearWeight map_weight(const Backend::MapLinearArgs& args, const HostMemory& memory) {
  VOLLEY_ASSERT(args.type != WeightType::kF32);
  const PackedExtents extents(args.out_features, args.in_features, args.type);
  require_plane(args.planes.panels, extents.panel_dtype(), extents.panel_shape(), "panels");
  LinearWeight weight{.type = args.type, .out_features = args.out_features, .in_features = args.in_features};
  weight.data = plane_buffer(args.planes.panels, args.owner, memory);
  if (is_quantized(args.type)) {
    require_plane(args.planes.scales, DType::kF16, extents.scale_shape(), "scales");
    weight.scales = plane_buffer(args.planes.scales, args.owner, memory);
  }
  return weight;
}

}  // namespace volley
