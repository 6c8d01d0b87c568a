#pragma once

// The layout of bf16, q8_0 and q4_1 weights for products: the same on every processor, so that a file of
// packed weights is mapped and multiplied as it lies.
//
// A weight [out, in] is cut into groups of 16 output features, padded with zeros to whole groups, and its
// depth (in) is padded to a multiple of 32. Letters: G = ceil(out / 16) groups, K = padded depth.
//
//   bf16   panels [G, K / 2, 16, 2]: for two neighbours of the depth, the 16 features' pairs
//   q8_0   panels [G, K / 4, 16, 4] i8: for four neighbours of the depth, the 16 features' quads
//          scales [G, K / 32, 16] f16: w = quant * scale
//   q4_1   panels [G, K / 8, 16, 4] u8: of eight neighbours of the depth, the 16 features' first four in the
//          lower halves of their bytes, the other four in the upper
//          scales [G, K / 32, 2, 16] f16: the features' scales, then their offsets: w = quant * scale +
//          offset
//
// A row of 64 bytes is what one AVX-512 instruction, or one row of an AMX tile, takes.

#include <cstdint>
#include <string_view>

#include "core/backend/backend.h"
#include "core/backend/cpu/host_memory.h"
#include "core/backend/operations.h"
#include "core/base/thread_pool.h"

namespace volley {

inline constexpr std::string_view kPackedLayout = "cpu/1";
inline constexpr int64_t kGroupColumns = 16;
inline constexpr int64_t kDepthStep = 32;

struct PackedExtents {
  PackedExtents(int64_t out_features, int64_t in_features, WeightType weight_type)
      : type(weight_type),
        groups((out_features + kGroupColumns - 1) / kGroupColumns),
        depth((in_features + kDepthStep - 1) / kDepthStep * kDepthStep) {}

  WeightType type;
  int64_t groups = 0;
  int64_t depth = 0;

  // Neighbours of the depth that share a row of 64 bytes.
  int64_t neighbours() const { return type == WeightType::kBF16 ? 2 : type == WeightType::kQ8_0 ? 4 : 8; }
  // Scales (and offsets) of a feature's block; 0 for bf16.
  int64_t block_scales() const { return type == WeightType::kBF16 ? 0 : type == WeightType::kQ8_0 ? 1 : 2; }
  int64_t group_bytes() const { return depth / neighbours() * 4 * kGroupColumns; }
  int64_t panel_bytes() const { return groups * group_bytes(); }
  // Scales of a group, in elements.
  int64_t group_scales() const { return depth / kDepthStep * block_scales() * kGroupColumns; }
  int64_t scale_bytes() const { return groups * group_scales() * 2; }
  // As the planes are stored in a file.
  DType panel_dtype() const {
    return type == WeightType::kBF16 ? DType::kBF16 : type == WeightType::kQ8_0 ? DType::kI8 : DType::kU8;
  }
  Shape panel_shape() const {
    return {groups, depth / neighbours(), (type == WeightType::kBF16 ? 2 : 4) * kGroupColumns};
  }
  Shape scale_shape() const { return {groups, depth / kDepthStep, block_scales() * kGroupColumns}; }
};

// Packs a weight [out, in] of any float type, rounding to bf16, q8_0 (core/backend/q8_0.h) or q4_1 (q4_1.h).
LinearWeight pack_weight(const HostView& weight, WeightType type, const HostMemory& memory,
                         ThreadPool& threads);

// Packs q8_0 planes as they are: quants i8 [out, in], scales f16 [out, in / 32], in a multiple of 32.
LinearWeight pack_quantized(const HostView& quants, const HostView& scales, const HostMemory& memory,
                            ThreadPool& threads);

// Row `n` [in] of a q8_0 or q4_1 weight, as f32.
void unpack_row(const LinearWeight& weight, int64_t n, float* out);

// The planes of a packed weight, and a weight of such planes: Backend::packed_planes, Backend::map_linear.
PackedPlanes planes_of(const LinearWeight& weight);
LinearWeight map_weight(const Backend::MapLinearArgs& args, const HostMemory& memory);

}  // namespace volley
