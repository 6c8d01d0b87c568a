#pragma once

// An f32 product's weight is cut into panels of output features; this is what multiplies a few rows with one
// panel.

#include <cstddef>
#include <cstdint>
#include <memory>

namespace volley {

struct PanelShape {
  int64_t depth = 0;    // in_features
  int64_t columns = 0;  // output features of the panel, padded with zeros to a multiple of 16
  auto operator<=>(const PanelShape&) const = default;
};

// `rows` rows times one panel.
struct PanelProductArgs {
  PanelShape shape;
  int64_t rows = 0;          // at most kSliceRows of grouped_products.h
  const float* x = nullptr;  // [rows, depth]
  const std::byte* panel = nullptr;
  float* out = nullptr;  // [rows, columns], overwritten
};

// One family of kernels. The bits of an output row depend on the source row and the panel, never on how many
// rows stand in the call or where the row stands among them. Const after construction and shareable.
class PanelProducts {
 public:
  virtual ~PanelProducts() = default;
  virtual int64_t packed_bytes(const PanelShape& shape) const = 0;
  // weight: [depth, columns].
  virtual void pack(const PanelShape& shape, const float* weight, std::byte* panel) const = 0;
  // Any number of threads may call it at the same time.
  virtual void multiply(const PanelProductArgs& args) const = 0;
};

// Own kernels: any processor.
std::unique_ptr<const PanelProducts> make_own_products();

// oneDNN, or null where it has no kernel on this processor whose bits are independent of the row count (or
// the build is without oneDNN).
std::unique_ptr<const PanelProducts> make_library_products();

// Keeps oneDNN from instructions beyond AVX2, before its first use. Throws Error when it refuses.
void limit_library_to_avx2();

}  // namespace volley
