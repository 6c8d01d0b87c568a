// Rows of quantised products.
#include <algorithm>
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

// Blocks whose scales are computed side by side.
constexpr int64_t kBatch = 16;

struct BatchScales {
  HWY_ALIGN float inverses[kBatch];  // quant_inverse; 0 where a block is not finite
  HWY_ALIGN float scales[kBatch];
};

// As quantize_row_block finds them, for `blocks` of 32 numbers each.
HWY_INLINE BatchScales scales_of(const float* HWY_RESTRICT x, int64_t blocks) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  // Magnitudes are ordered as their bits are; those of infinity and NaN are the greatest.
  HWY_ALIGN int32_t greatest[kBatch] = {};
  for (int64_t b = 0; b < blocks; ++b, x += kQ8BlockSize) {
    auto most = hn::BitCast(di, hn::Abs(hn::LoadU(d, x)));
    for (int64_t i = lanes; i < kQ8BlockSize; i += lanes)
      most = hn::Max(most, hn::BitCast(di, hn::Abs(hn::LoadU(d, x + i))));
    greatest[b] = hn::GetLane(hn::MaxOfLanes(di, most));
  }
  BatchScales batch;
  const auto infinity = hn::Set(d, std::numeric_limits<float>::infinity()), most = hn::Set(d, kGreatestQuant);
  for (int64_t i = 0; i < kBatch; i += lanes) {
    const auto magnitude = hn::BitCast(d, hn::Load(di, greatest + i));
    const auto is_finite = hn::Lt(magnitude, infinity);
    const auto inverse = hn::Div(most, magnitude);
    const auto is_used =
        hn::And(hn::And(is_finite, hn::Gt(magnitude, hn::Zero(d))), hn::Lt(inverse, infinity));
    hn::Store(hn::IfThenElseZero(is_used, inverse), d, batch.inverses + i);
    const auto nan = hn::Set(d, std::numeric_limits<float>::quiet_NaN());
    hn::Store(hn::IfThenElse(is_finite, hn::Div(magnitude, most), nan), d, batch.scales + i);
  }
  return batch;
}

// The quants of a block of 32 numbers, and their sum if it is asked for (else 0). Quants are handed out as
// vectors of words whose lowest bits they are: write(words, their index).
template <bool kSum, class Write>
HWY_INLINE float quantize_block(const float* HWY_RESTRICT x, float inverse, const Write& write) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const hn::RebindToSigned<decltype(d)> di;
  [[maybe_unused]] auto sum = hn::Zero(di);
  for (int64_t i = 0; i < kQ8BlockSize; i += lanes) {
    const auto scaled = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, inverse));
    const auto words = hn::BitCast(du, hn::Add(scaled, hn::Set(d, kNoFraction)));
    if constexpr (kSum) sum = hn::Add(sum, hn::ShiftRight<24>(hn::BitCast(di, hn::ShiftLeft<24>(words))));
    write(words, i);
  }
  if constexpr (!kSum) return 0.0f;
  return static_cast<float>(hn::GetLane(hn::SumOfLanes(di, sum)));
}

// The quants of four neighbours of the depth as kInterleaved16 has them.
HWY_INLINE uint64_t interleaved_quad(const uint16_t* quants) {
  uint64_t quad;
  std::memcpy(&quad, quants, sizeof(quad));
  return (quad & 0xffff00000000ffffu) | (quad >> 16 & 0xffff0000u) | (quad & 0xffff0000u) << 16;
}

// A block whose quants go to `out` in the row's format, from column `begin` on.
template <RowFormat format, bool kSum>
HWY_INLINE float quantize_block_to(const float* x, float inverse, const QuantizeRowArgs& args,
                                   int64_t begin) {
  const hn::RebindToUnsigned<hn::CappedTag<float, 16>> du;
  if constexpr (format == RowFormat::kInterleaved16) {
    const hn::Rebind<uint16_t, decltype(du)> d16;
    HWY_ALIGN uint16_t quants[kQ8BlockSize];
    const float sum = quantize_block<kSum>(x, inverse, [&](auto words, int64_t i) HWY_ATTR {
      hn::StoreU(hn::TruncateTo(d16, words), d16, quants + i);
    });
    auto* out = static_cast<int16_t*>(args.out) + begin / 4 * args.quad_stride;
    for (int64_t k = 0; k < kQ8BlockSize; k += 4, out += args.quad_stride) {
      const uint64_t quad = interleaved_quad(quants + k);
      std::memcpy(out, &quad, sizeof(quad));
    }
    return sum;
  } else {
    const hn::Rebind<uint8_t, decltype(du)> d8;
    auto* out = static_cast<uint8_t*>(args.out) + begin;
    return quantize_block<kSum>(x, inverse, [&](auto words, int64_t i) HWY_ATTR {
      hn::StoreU(hn::TruncateTo(d8, words), d8, out + i);
    });
  }
}

// Blocks behind each other, from column `begin` on.
template <RowFormat format, bool kSum>
HWY_INLINE void quantize_batch(const float* x, int64_t blocks, const QuantizeRowArgs& args, int64_t begin) {
  const BatchScales batch = scales_of(x, blocks);
  int64_t at = begin / kQ8BlockSize * args.scale_stride;
  for (int64_t b = 0; b < blocks; ++b, at += args.scale_stride) {
    const int64_t first = b * kQ8BlockSize;
    const float sum = quantize_block_to<format, kSum>(x + first, batch.inverses[b], args, begin + first);
    args.scales[at] = batch.scales[b];
    if constexpr (kSum) args.sums[at] = batch.scales[b] * sum;
  }
}

template <RowFormat format, bool kSum>
HWY_INLINE void quantize_row_to(const QuantizeRowArgs& args) {
  const int64_t whole = args.width / kQ8BlockSize * kQ8BlockSize;
  for (int64_t begin = 0; begin < whole; begin += kBatch * kQ8BlockSize) {
    const int64_t blocks = std::min(kBatch, (whole - begin) / kQ8BlockSize);
    quantize_batch<format, kSum>(args.x + begin, blocks, args, begin);
  }
  if (whole == args.width) return;
  HWY_ALIGN float padded[kQ8BlockSize] = {};
  std::copy_n(args.x + whole, args.width - whole, padded);
  quantize_batch<format, kSum>(padded, 1, args, whole);
}

template <RowFormat format>
void quantize_row_as(const QuantizeRowArgs& args) {
  if (args.sums == nullptr) return quantize_row_to<format, false>(args);
  quantize_row_to<format, true>(args);
}

void quantize_row(const QuantizeRowArgs& args) {
  switch (args.format) {
    case RowFormat::kSigned8:
      return quantize_row_as<RowFormat::kSigned8>(args);
    case RowFormat::kInterleaved16:
      return quantize_row_as<RowFormat::kInterleaved16>(args);
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
