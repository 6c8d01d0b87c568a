#pragma once

// A product's weight is cut into panels of output features; this is what multiplies a few rows with one
// panel.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/backend/operations.h"

namespace volley {

// Rows of one call at most.
inline constexpr int64_t kSliceRows = 64;

// How a kernel reads its rows.
enum class SourceFormat : uint8_t {
  kF32,         // as they are
  kRoundedF32,  // f32 holding values rounded to bf16
  kBF16,        // rounded to bf16, two bytes each
};

// What a kernel asks of the extents it gets; the caller pads with zeros.
struct PanelGranularity {
  int64_t rows = 1;
  int64_t depth = 1;
  int64_t columns = 1;
  int64_t least_columns = 1;
};

struct PanelShape {
  int64_t depth = 0;    // in_features, padded
  int64_t columns = 0;  // output features of the panel, padded
  WeightType type = WeightType::kF32;
  auto operator<=>(const PanelShape&) const = default;
};

// `rows` rows times one panel.
struct PanelProductArgs {
  PanelShape shape;
  int64_t rows = 0;         // a multiple of the granularity, at most kSliceRows
  const void* x = nullptr;  // [rows, depth] in the kernel's source format
  const std::byte* panel = nullptr;
  float* out = nullptr;  // [rows, columns], overwritten
};

// One family of kernels. The bits of an output row depend on the source row and the panel, never on how many
// rows stand in the call or where the row stands among them. Const after construction and shareable.
class PanelProducts {
 public:
  virtual ~PanelProducts() = default;
  virtual SourceFormat source_format(WeightType type) const = 0;
  virtual PanelGranularity granularity(WeightType type) const = 0;
  virtual int64_t packed_bytes(const PanelShape& shape) const = 0;
  // weight: [depth, columns]. For bf16 the values are rounded here.
  virtual void pack(const PanelShape& shape, const float* weight, std::byte* panel) const = 0;
  // Any number of threads may call it at the same time.
  virtual void multiply(const PanelProductArgs& args) const = 0;
};

// Own kernels: any processor, both weight types.
std::unique_ptr<const PanelProducts> make_own_products();

// oneDNN, or null where it has no kernel for `type` on this processor whose bits are independent of the row
// count (or the build is without oneDNN).
std::unique_ptr<const PanelProducts> make_library_products(WeightType type);

// Keeps oneDNN from instructions beyond AVX2, before its first use. Throws Error when it refuses.
void limit_library_to_avx2();

}  // namespace volley
