// Rows of quantised products.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/backend/cpu/elementwise.h"
#include "core/backend/cpu/simd_targets.h"
#include "core/backend/q8_0.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/quantize_row.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct BlockScale {
  float scale = 0.0f;
  float row_sum = 0.0f;
};

// As quantize_row_block and quant_row_sum, of at most 32 numbers. Quants are handed out as vectors of words:
// write(quants, their index).
template <class Write>
HWY_INLINE BlockScale quantize_block(const float* HWY_RESTRICT x, int64_t count, const Write& write) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  HWY_ALIGN float padded[kQ8BlockSize];
  if (count < kQ8BlockSize) {
    std::fill(std::copy_n(x, count, padded), padded + kQ8BlockSize, 0.0f);
    x = padded;
  }
  // Magnitudes are ordered as their bits are; those of infinity and NaN are the greatest.
  auto most = hn::Zero(di);
  for (int64_t i = 0; i < kQ8BlockSize; i += lanes)
    most = hn::Max(most, hn::BitCast(di, hn::Abs(hn::LoadU(d, x + i))));
  const auto greatest = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(di, most)));
  const bool is_finite = std::isfinite(greatest);
  const auto inverse = hn::Set(d, is_finite ? quant_inverse(greatest) : 0.0f);
  auto sum = hn::Zero(di);
  for (int64_t i = 0; i < kQ8BlockSize; i += lanes) {
    const auto quants = is_finite ? hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse)) : hn::Zero(di);
    sum = hn::Add(sum, quants);
    write(quants, i);
  }
  const float scale = is_finite ? greatest / kGreatestQuant : std::numeric_limits<float>::quiet_NaN();
  return {scale, scale * static_cast<float>(hn::GetLane(hn::SumOfLanes(di, sum)))};
}

// The quants of four neighbours of the depth as kInterleaved16 has them.
HWY_INLINE uint64_t interleaved_quad(const int16_t* quants) {
  uint64_t quad;
  std::memcpy(&quad, quants, sizeof(quad));
  return (quad & 0xffff00000000ffffu) | (quad >> 16 & 0xffff0000u) | (quad & 0xffff0000u) << 16;
}

// A block whose quants go to `out` in the row's format.
template <RowFormat format>
HWY_INLINE BlockScale quantize_block_to(const float* x, int64_t count, const QuantizeRowArgs& args,
                                        int64_t begin) {
  const hn::RebindToSigned<hn::CappedTag<float, 16>> di;
  if constexpr (format == RowFormat::kInterleaved16) {
    const hn::Rebind<int16_t, decltype(di)> d16;
    HWY_ALIGN int16_t quants[kQ8BlockSize];
    const auto scale = quantize_block(x, count, [&](auto words, int64_t i) HWY_ATTR {
      hn::StoreU(hn::DemoteTo(d16, words), d16, quants + i);
    });
    auto* out = static_cast<int16_t*>(args.out) + begin / 4 * args.quad_stride;
    for (int64_t k = 0; k < kQ8BlockSize; k += 4, out += args.quad_stride) {
      const uint64_t quad = interleaved_quad(quants + k);
      std::memcpy(out, &quad, sizeof(quad));
    }
    return scale;
  } else {
    const hn::Rebind<int8_t, decltype(di)> d8;
    auto* out = static_cast<int8_t*>(args.out) + begin;
    return quantize_block(
        x, count, [&](auto words, int64_t i) HWY_ATTR { hn::StoreU(hn::DemoteTo(d8, words), d8, out + i); });
  }
}

template <RowFormat format>
HWY_INLINE void quantize_row_to(const QuantizeRowArgs& args) {
  for (int64_t begin = 0; begin < args.width; begin += kQ8BlockSize) {
    const auto [scale, row_sum] =
        quantize_block_to<format>(args.x + begin, std::min(kQ8BlockSize, args.width - begin), args, begin);
    const int64_t at = begin / kQ8BlockSize * args.scale_stride;
    args.scales[at] = scale;
    if (args.sums != nullptr) args.sums[at] = row_sum;
  }
}

void quantize_row(const QuantizeRowArgs& args) {
  switch (args.format) {
    case RowFormat::kSigned8:
      return quantize_row_to<RowFormat::kSigned8>(args);
    case RowFormat::kInterleaved16:
      return quantize_row_to<RowFormat::kInterleaved16>(args);
    case RowFormat::kRoundedF32:
    case RowFormat::kBF16:
      HWY_ASSERT(false);
  }
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace volley {

HWY_EXPORT(quantize_row);

void quantize_row(const QuantizeRowArgs& args) {
  HWY_DYNAMIC_DISPATCH(quantize_row)(args);
}

}  // namespace volley
#endif  // HWY_ONCE
