// Own f32 product kernel: the sum of an output element runs over the depth from first to last in one chain of
// multiply-adds, whatever tile of rows it is computed in.
#include "core/backend/cpu/panel_products.h"
#include "core/backend/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/own_products.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Columns that lie together in a packed panel: one AVX-512 vector, two AVX2 vectors, four SSE vectors.
constexpr int64_t kTile = 16;

// kRows rows times kTiles tiles of 16 columns.
template <int kRows, int kTiles>
HWY_INLINE void multiply_block(const float* HWY_RESTRICT x, int64_t depth, const float* HWY_RESTRICT weights,
                               float* HWY_RESTRICT out, int64_t columns) {
  const hn::CappedTag<float, kTile> d;
  constexpr int kVectors = kTile / hn::MaxLanes(d);
  hn::Vec<decltype(d)> sums[kRows][kTiles * kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kTiles * kVectors; ++v) sums[r][v] = hn::Zero(d);
  }
  for (int64_t k = 0; k < depth; ++k) {
    hn::Vec<decltype(d)> w[kTiles * kVectors];
    for (int t = 0; t < kTiles; ++t) {
      for (int v = 0; v < kVectors; ++v) {
        w[t * kVectors + v] = hn::Load(d, weights + (t * depth + k) * kTile + v * hn::MaxLanes(d));
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const auto source = hn::Set(d, x[r * depth + k]);
      for (int v = 0; v < kTiles * kVectors; ++v) sums[r][v] = hn::MulAdd(source, w[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kTiles * kVectors; ++v) {
      hn::Store(sums[r][v], d, out + r * columns + v * hn::MaxLanes(d));
    }
  }
}

// As many rows as leave the accumulators in registers (32 vector registers with AVX-512, 16 without).
constexpr int kBlockRows = HWY_MAX_BYTES >= 64 ? 12 : HWY_MAX_BYTES >= 32 ? 6 : 3;

template <int kRows>
void multiply_rows(const float* x, int64_t depth, const float* weights, float* out, int64_t columns) {
  // Two tiles at once where registers allow, so that a single row keeps several chains in flight.
  constexpr int kTiles = kRows <= kBlockRows / 2 ? 2 : 1;
  int64_t c = 0;
  for (; c + kTiles * kTile <= columns; c += kTiles * kTile) {
    multiply_block<kRows, kTiles>(x, depth, weights + c * depth, out + c, columns);
  }
  for (; c < columns; c += kTile) multiply_block<kRows, 1>(x, depth, weights + c * depth, out + c, columns);
}

void multiply(const float* x, int64_t rows, int64_t depth, const float* weights, float* out,
              int64_t columns) {
  int64_t r = 0;
  for (; r + kBlockRows <= rows; r += kBlockRows) {
    multiply_rows<kBlockRows>(x + r * depth, depth, weights, out + r * columns, columns);
  }
  if constexpr (kBlockRows > 3) {
    for (; r + 3 <= rows; r += 3) {
      multiply_rows<3>(x + r * depth, depth, weights, out + r * columns, columns);
    }
  }
  for (; r < rows; ++r) multiply_rows<1>(x + r * depth, depth, weights, out + r * columns, columns);
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace volley {
namespace {

HWY_EXPORT(multiply);

class OwnProducts : public PanelProducts {
 public:
  int64_t packed_bytes(const PanelShape& shape) const override { return shape.depth * shape.columns * 4; }

  // Packed: [columns / 16, depth, 16].
  void pack(const PanelShape& shape, const float* weight, std::byte* panel) const override {
    constexpr int64_t kTile = 16;
    auto* packed = reinterpret_cast<float*>(panel);
    for (int64_t c = 0; c < shape.columns; c += kTile) {
      for (int64_t k = 0; k < shape.depth; ++k) {
        for (int64_t i = 0; i < kTile; ++i)
          packed[c * shape.depth + k * kTile + i] = weight[k * shape.columns + c + i];
      }
    }
  }

  void multiply(const PanelProductArgs& args) const override {
    HWY_DYNAMIC_DISPATCH(multiply)
    (args.x, args.rows, args.shape.depth, reinterpret_cast<const float*>(args.panel), args.out,
     args.shape.columns);
  }
};

}  // namespace

std::unique_ptr<const PanelProducts> make_own_products() {
  return std::make_unique<OwnProducts>();
}

}  // namespace volley
#endif  // HWY_ONCE
