#include "core/backend/cpu/convolution_kernels.h"

#include "core/backend/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/convolution_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <int kVectors>
HWY_INLINE void convolve_vectors(const ConvolveTileArgs& args, int64_t at) {
  const hn::CappedTag<float, kPositionPadding> d;
  constexpr int64_t kLanes = hn::MaxLanes(d);
  hn::Vec<decltype(d)> sums[kChannelTile][kVectors];
  for (int o = 0; o < kChannelTile; ++o) {
    for (int v = 0; v < kVectors; ++v) sums[o][v] = hn::Set(d, args.bias[o]);
  }
  const float* weight = args.weight;
  for (int64_t k = 0; k < args.taps; ++k, weight += kChannelTile) {
    const float* x = args.x + args.offsets[k] + at;
    hn::Vec<decltype(d)> inputs[kVectors];
    for (int v = 0; v < kVectors; ++v) inputs[v] = hn::LoadU(d, x + v * kLanes);
    for (int o = 0; o < kChannelTile; ++o) {
      const auto w = hn::Set(d, weight[o]);
      for (int v = 0; v < kVectors; ++v) sums[o][v] = hn::MulAdd(w, inputs[v], sums[o][v]);
    }
  }
  for (int o = 0; o < kChannelTile; ++o) {
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sums[o][v], d, args.out + o * args.out_stride + at + v * kLanes);
    }
  }
}

void convolve_tile(const ConvolveTileArgs& args) {
  // As many vectors as leave the accumulators and the pixels in registers.
  constexpr int kVectors = HWY_MAX_BYTES >= 64 ? 6 : HWY_MAX_BYTES >= 32 ? 3 : 2;
  constexpr int64_t kLanes = hn::MaxLanes(hn::CappedTag<float, kPositionPadding>());
  int64_t i = 0;
  for (; i + (kVectors - 1) * kLanes < args.positions; i += kVectors * kLanes)
    convolve_vectors<kVectors>(args, i);
  for (; i + kLanes < args.positions; i += 2 * kLanes) convolve_vectors<2>(args, i);
  for (; i < args.positions; i += kLanes) convolve_vectors<1>(args, i);
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace volley {

HWY_EXPORT(convolve_tile);
void convolve_tile(const ConvolveTileArgs& args) {
  HWY_DYNAMIC_DISPATCH(convolve_tile)(args);
}

}  // namespace volley
#endif  // HWY_ONCE
