#include "core/backend/cpu/channel_order.h"

#include <algorithm>
#include <utility>

#include "core/backend/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/channel_order.cpp"
#include "hwy/foreach_target.h"
// Must come after foreach_target.h.
#include "core/backend/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {

// Points of a channel that are worked on together, and what of them is turned at once.
constexpr int64_t kPoints = 16;
constexpr int64_t kSide = 4;

// to[j][i] = from[i][j], of 32-bit elements.
template <typename T>
HWY_INLINE void transpose_four(const T* const* from, T* const* to) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < kSide; ++i) {
    for (int64_t j = 0; j < kSide; ++j) to[j][i] = from[i][j];
  }
#else
  const hn::CappedTag<T, kSide> d;
  static_assert(hn::MaxLanes(decltype(d)()) == kSide);
  const hn::Repartition<uint64_t, decltype(d)> wide;
  // Of two rows: their first halves interleaved, and their second halves.
  const auto pair = [&](int64_t i) HWY_ATTR {
    const auto a = hn::LoadU(d, from[i]), b = hn::LoadU(d, from[i + 1]);
    return std::pair(hn::BitCast(wide, hn::InterleaveLower(d, a, b)),
                     hn::BitCast(wide, hn::InterleaveUpper(d, a, b)));
  };
  const auto [lower_01, upper_01] = pair(0);
  const auto [lower_23, upper_23] = pair(2);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, lower_01, lower_23)), d, to[0]);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, lower_01, lower_23)), d, to[1]);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, upper_01, upper_23)), d, to[2]);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, upper_01, upper_23)), d, to[3]);
#endif
}

// Some points of a channel, beyond `count` zero.
struct ChannelPoints {
  const float* x = nullptr;  // null: zeros
  int64_t stride = 1;
  int64_t count = 0;

  HWY_INLINE void load(float* values) const {
    if (x != nullptr && stride == 1 && count == kPoints) {
      std::copy_n(x, kPoints, values);
      return;
    }
    std::fill_n(values, kPoints, 0.0f);
    for (int64_t i = 0; x != nullptr && i < count; ++i) values[i] = x[i * stride];
  }
};

// Words of points: a channel rounded to bf16 in f32, or two of them rounded side by side.
template <RowFormat kFormat>
HWY_INLINE void round_channels(const ChannelPoints* channels, uint32_t* words) {
  constexpr int64_t kOfWord = kFormat == RowFormat::kBF16 ? 2 : 1;
  float values[kOfWord][kPoints];
  for (int64_t i = 0; i < kOfWord; ++i) channels[i].load(values[i]);
  const hn::CappedTag<float, kPoints> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const auto upper = hn::Set(du, 0xffff0000u);
  for (int64_t i = 0; i < kPoints; i += static_cast<int64_t>(hn::Lanes(d))) {
    auto word = hn::And(bf16_bits(d, hn::LoadU(d, values[kOfWord - 1] + i)), upper);
    if constexpr (kOfWord == 2)
      word = hn::Or(word, hn::ShiftRight<16>(bf16_bits(d, hn::LoadU(d, values[0] + i))));
    hn::StoreU(word, du, words + i);
  }
}

template <RowFormat kFormat>
HWY_INLINE void interleave(const InterleaveChannelsArgs& args) {
  constexpr int64_t kOfWord = kFormat == RowFormat::kBF16 ? 2 : 1;
  const int64_t row_words = args.padded_channels / kOfWord;
  uint32_t words[kSide][kPoints], unwanted[kSide];
  for (int64_t begin = 0; begin < args.points; begin += kPoints) {
    const int64_t count = std::min(kPoints, args.points - begin);
    auto* out = reinterpret_cast<uint32_t*>(args.out) + begin * row_words;
    for (int64_t word = 0; word < row_words; word += kSide) {
      for (int64_t w = 0; w < kSide; ++w) {
        ChannelPoints channels[kOfWord];
        for (int64_t i = 0; i < kOfWord; ++i) {
          const int64_t c = (word + w) * kOfWord + i;
          const float* x = nullptr;
          if (c < args.channels) x = args.planes + c * args.plane_stride + begin * args.point_stride;
          channels[i] = {x, args.point_stride, count};
        }
        round_channels<kFormat>(channels, words[w]);
      }
      for (int64_t i = 0; i < count; i += kSide) {
        const uint32_t* from[kSide];
        uint32_t* to[kSide];
        for (int64_t k = 0; k < kSide; ++k) {
          from[k] = words[k] + i;
          to[k] = i + k < count ? out + (i + k) * row_words + word : unwanted;
        }
        transpose_four(from, to);
      }
    }
  }
}

void interleave_channels(const InterleaveChannelsArgs& args) {
  if (args.format == RowFormat::kBF16) {
    interleave<RowFormat::kBF16>(args);
  } else {
    interleave<RowFormat::kRoundedF32>(args);
  }
}

// Points of a channel, [count], to where they belong.
HWY_INLINE void put_points(const ScatterChannelsArgs& args, const float* points, int64_t channel,
                           int64_t begin, int64_t count) {
  float* out = args.out + channel * args.plane_stride + begin;
  for_each_vector(0, count, [&](auto d, int64_t i) HWY_ATTR {
    auto value = hn::Add(hn::LoadU(d, points + i), hn::Set(d, args.bias[channel]));
    if (args.accumulate == Accumulate::kAdd) value = hn::Add(hn::LoadU(d, out + i), value);
    hn::StoreU(value, d, out + i);
  });
}

void scatter_channels(const ScatterChannelsArgs& args) {
  float planes[kSide][kPoints];
  // Planes are far from each other, so all points of some come before the next ones.
  for (int64_t channel = 0; channel < args.channels; channel += kSide) {
    for (int64_t begin = 0; begin < args.points; begin += kPoints) {
      const int64_t count = std::min(kPoints, args.points - begin);
      for (int64_t i = 0; i < count; i += kSide) {
        const float* from[kSide];
        float* to[kSide];
        for (int64_t k = 0; k < kSide; ++k) {
          from[k] = args.tile + (begin + std::min(i + k, count - 1)) * args.tile_stride + channel;
          to[k] = planes[k] + i;
        }
        transpose_four(from, to);
      }
      for (int64_t k = 0; k < kSide && channel + k < args.channels; ++k)
        put_points(args, planes[k], channel + k, begin, count);
    }
  }
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace volley {

HWY_EXPORT(interleave_channels);
HWY_EXPORT(scatter_channels);

void interleave_channels(const InterleaveChannelsArgs& args) {
  HWY_DYNAMIC_DISPATCH(interleave_channels)(args);
}
void scatter_channels(const ScatterChannelsArgs& args) {
  HWY_DYNAMIC_DISPATCH(scatter_channels)(args);
}

}  // namespace volley
#endif  // HWY_ONCE
