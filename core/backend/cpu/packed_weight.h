#pragma once

// The layout of bf16 and q8_0 weights for products: the same on every processor, so that a file of packed
// weights is mapped and multiplied as it lies.
//
// A weight [out, in] is cut into groups of 16 output features, padded with zeros to whole groups, and its
// depth (in) is padded to a multiple of 32. Letters: G = ceil(out / 16) groups, K = padded depth.
//
//   bf16   panels [G, K / 2, 16, 2]: for two neighbours of the depth, the 16 features' pairs
//   q8_0   panels [G, K / 4, 16, 4] i8: for four neighbours of the depth, the 16 features' quads
//          scales [G, K / 32, 16] f16: w = quant * scale
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

  int64_t group_bytes() const { return depth * kGroupColumns * (type == WeightType::kBF16 ? 2 : 1); }
  int64_t panel_bytes() const { return groups * group_bytes(); }
  // Scales of a group, in elements; 0 for bf16.
  int64_t group_scales() const { return type == WeightType::kQ8_0 ? depth / kDepthStep * kGroupColumns : 0; }
  int64_t scale_bytes() const { return groups * group_scales() * 2; }
  // As the planes are stored in a file.
  Shape panel_shape() const {
    return type == WeightType::kBF16 ? Shape({groups, depth / 2, 2 * kGroupColumns})
                                     : Shape({groups, depth / 4, 4 * kGroupColumns});
  }
  Shape scale_shape() const { return {groups, depth / kDepthStep, kGroupColumns}; }
};

// Packs a weight [out, in] of any float type, rounding to bf16 or to q8_0 (core/backend/q8_0.h).
LinearWeight pack_weight(const HostView& weight, WeightType type, const HostMemory& memory,
                         ThreadPool& threads);

// Packs q8_0 planes as they are: quants i8 [out, in], scales f16 [out, in / 32], in a multiple of 32.
LinearWeight pack_quantized(const HostView& quants, const HostView& scales, const HostMemory& memory,
                            ThreadPool& threads);

// The planes of a packed weight, and a weight of such planes: Backend::packed_planes, Backend::map_linear.
PackedPlanes planes_of(const LinearWeight& weight);
LinearWeight map_weight(const Backend::MapLinearArgs& args, const HostMemory& memory);

}  // namespace volley
