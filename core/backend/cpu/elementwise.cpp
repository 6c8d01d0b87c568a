#include "core/backend/cpu/elementwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/backend/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/elementwise.cpp"
#include "hwy/foreach_target.h"
// Must come after foreach_target.h.
#include "core/backend/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {

void convert_to_bf16(const float* HWY_RESTRICT x, int64_t count, uint16_t* HWY_RESTRICT out) {
  for_each_vector(0, count, [&](auto d, int64_t i) HWY_ATTR {
    const hn::RebindToSigned<decltype(d)> di;
    const hn::Rebind<uint16_t, decltype(d)> d16;
    const auto bits = hn::ShiftRight<16>(bf16_bits(d, hn::LoadU(d, x + i)));
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, bits)), d16, out + i);
  });
}

void round_to_bf16(const float* HWY_RESTRICT x, int64_t count, float* HWY_RESTRICT out) {
  for_each_vector(0, count, [&](auto d, int64_t i) HWY_ATTR {
    const auto bits = bf16_bits(d, hn::LoadU(d, x + i));
    const hn::RebindToUnsigned<decltype(d)> du;
    hn::StoreU(hn::BitCast(d, hn::And(bits, hn::Set(du, 0xffff0000u))), d, out + i);
  });
}

void store_tile(const StoreTileArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* tile = args.tile + r * args.tile_stride;
    float* out = args.out + r * args.out_stride;
    for_each_vector(0, args.columns, [&](auto d, int64_t i) HWY_ATTR {
      auto value = hn::LoadU(d, tile + i);
      if (args.bias != nullptr) value = hn::Add(value, hn::LoadU(d, args.bias + i));
      if (args.accumulate == Accumulate::kAdd) value = hn::Add(hn::LoadU(d, out + i), value);
      hn::StoreU(value, d, out + i);
    });
  }
}

void activate(Activation activation, float* x, int64_t count) {
  switch (activation) {
    case Activation::kSilu:
      return for_each_vector(
          0, count, [&](auto d, int64_t i) HWY_ATTR { hn::StoreU(silu(d, hn::LoadU(d, x + i)), d, x + i); });
    case Activation::kGeluErf:
      return for_each_vector(0, count, [&](auto d, int64_t i) HWY_ATTR {
        const auto v = hn::LoadU(d, x + i);
        const auto erf = error_function(d, hn::Mul(v, hn::Set(d, 0.70710678118654752f)));
        hn::StoreU(hn::Mul(hn::Mul(hn::Set(d, 0.5f), v), hn::Add(hn::Set(d, 1.0f), erf)), d, x + i);
      });
    case Activation::kGeluTanh:
      // 0.5 (1 + tanh y) = 1 / (1 + e^-2y)
      return for_each_vector(0, count, [&](auto d, int64_t i) HWY_ATTR {
        const auto v = hn::LoadU(d, x + i);
        const auto cube = hn::Mul(hn::Mul(v, v), v);
        const auto y =
            hn::Mul(hn::Set(d, -2.0f * 0.7978845608028654f), hn::MulAdd(hn::Set(d, 0.044715f), cube, v));
        hn::StoreU(hn::Div(v, hn::Add(hn::Set(d, 1.0f), exponential(d, y))), d, x + i);
      });
  }
}

void silu_mul(const float* gate, const float* up, int64_t count, float* out) {
  for_each_vector(0, count, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Mul(silu(d, hn::LoadU(d, gate + i)), hn::LoadU(d, up + i)), d, out + i);
  });
}

void add(const float* a, const float* b, int64_t count, float* out) {
  for_each_vector(0, count, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Add(hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, out + i);
  });
}

// Sum of term(tag, index) over [0, count): four vectors of partial sums, then single elements.
template <class Term>
HWY_INLINE float sum_of(int64_t count, const Term& term) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    s0 = hn::Add(s0, term(d, i));
    s1 = hn::Add(s1, term(d, i + lanes));
    s2 = hn::Add(s2, term(d, i + 2 * lanes));
    s3 = hn::Add(s3, term(d, i + 3 * lanes));
  }
  for (; i + lanes <= count; i += lanes) s0 = hn::Add(s0, term(d, i));
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  const hn::CappedTag<float, 1> d1;
  for (; i < count; ++i) sum += hn::GetLane(term(d1, i));
  return sum;
}

void rms_norm_row(const NormRowArgs& args) {
  const float squares = sum_of(args.width, [&](auto d, int64_t i) HWY_ATTR {
    const auto v = hn::LoadU(d, args.x + i);
    return hn::Mul(v, v);
  });
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(args.width) + args.eps);
  for_each_vector(0, args.width, [&](auto d, int64_t i) HWY_ATTR {
    const auto scaled = hn::Mul(hn::LoadU(d, args.x + i), hn::Set(d, scale));
    hn::StoreU(hn::Mul(scaled, hn::LoadU(d, args.weight + i)), d, args.out + i);
  });
}

void layer_norm_row(const NormRowArgs& args) {
  const float sum = sum_of(args.width, [&](auto d, int64_t i) HWY_ATTR { return hn::LoadU(d, args.x + i); });
  const float mean = sum / static_cast<float>(args.width);
  const float squares = sum_of(args.width, [&](auto d, int64_t i) HWY_ATTR {
    const auto v = hn::Sub(hn::LoadU(d, args.x + i), hn::Set(d, mean));
    return hn::Mul(v, v);
  });
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(args.width) + args.eps);
  for_each_vector(0, args.width, [&](auto d, int64_t i) HWY_ATTR {
    const auto v = hn::Mul(hn::Sub(hn::LoadU(d, args.x + i), hn::Set(d, mean)), hn::Set(d, scale));
    hn::StoreU(hn::MulAdd(v, hn::LoadU(d, args.weight + i), hn::LoadU(d, args.bias + i)), d, args.out + i);
  });
}

void l2_normalize_row(const NormRowArgs& args) {
  const float squares = sum_of(args.width, [&](auto d, int64_t i) HWY_ATTR {
    const auto v = hn::LoadU(d, args.x + i);
    return hn::Mul(v, v);
  });
  const float root = std::sqrt(squares);
  const float norm = root > args.eps ? root : args.eps;
  for_each_vector(0, args.width, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Div(hn::LoadU(d, args.x + i), hn::Set(d, norm)), d, args.out + i);
  });
}

GroupMoments group_moments(const GroupMomentsArgs& args) {
  // Each plane in f32 lanes, planes joined in f64.
  double sum = 0.0, squares = 0.0;
  for (int64_t c = 0; c < args.channels; ++c) {
    const float* x = args.x + c * args.area;
    sum += sum_of(args.area, [&](auto d, int64_t i) HWY_ATTR { return hn::LoadU(d, x + i); });
  }
  const double size = static_cast<double>(args.channels * args.area);
  const float mean = static_cast<float>(sum / size);
  for (int64_t c = 0; c < args.channels; ++c) {
    const float* x = args.x + c * args.area;
    squares += sum_of(args.area, [&](auto d, int64_t i) HWY_ATTR {
      const auto v = hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean));
      return hn::Mul(v, v);
    });
  }
  return {.mean = mean, .scale = static_cast<float>(1.0 / std::sqrt(squares / size + args.eps))};
}

void normalize_points(const NormalizePointsArgs& args) {
  const float factor = args.moments.scale * args.weight;
  for_each_vector(0, args.count, [&](auto d, int64_t i) HWY_ATTR {
    const auto v = hn::Sub(hn::LoadU(d, args.x + i), hn::Set(d, args.moments.mean));
    auto y = hn::MulAdd(v, hn::Set(d, factor), hn::Set(d, args.bias));
    if (args.swish == Swish::kAfter) y = silu(d, y);
    hn::StoreU(y, d, args.out + i);
  });
}

void rotate_head(const RotateArgs& args) {
  const int64_t half = args.width / 2;
  if (args.layout == RopeLayout::kSplitHalf) {
    for_each_vector(0, half, [&](auto d, int64_t i) HWY_ATTR {
      const auto a = hn::LoadU(d, args.x + i), b = hn::LoadU(d, args.x + half + i);
      const auto c = hn::LoadU(d, args.cosines + i), s = hn::LoadU(d, args.sines + i);
      hn::StoreU(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), d, args.x + i);
      hn::StoreU(hn::Add(hn::Mul(b, c), hn::Mul(a, s)), d, args.x + half + i);
    });
    return;
  }
  for_each_vector(0, half, [&](auto d, int64_t i) HWY_ATTR {
    hn::Vec<decltype(d)> a, b;
    hn::LoadInterleaved2(d, args.x + 2 * i, a, b);
    const auto c = hn::LoadU(d, args.cosines + i), s = hn::LoadU(d, args.sines + i);
    hn::StoreInterleaved2(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), hn::Add(hn::Mul(b, c), hn::Mul(a, s)), d,
                          args.x + 2 * i);
  });
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace volley {

HWY_EXPORT(convert_to_bf16);
HWY_EXPORT(round_to_bf16);
HWY_EXPORT(store_tile);
HWY_EXPORT(activate);
HWY_EXPORT(silu_mul);
HWY_EXPORT(add);
HWY_EXPORT(rms_norm_row);
HWY_EXPORT(layer_norm_row);
HWY_EXPORT(l2_normalize_row);
HWY_EXPORT(group_moments);
HWY_EXPORT(normalize_points);
HWY_EXPORT(rotate_head);

void convert_to_bf16(const float* x, int64_t count, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(convert_to_bf16)(x, count, out);
}
void round_to_bf16(const float* x, int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(round_to_bf16)(x, count, out);
}
void store_tile(const StoreTileArgs& args) {
  HWY_DYNAMIC_DISPATCH(store_tile)(args);
}
void activate(Activation activation, float* x, int64_t count) {
  HWY_DYNAMIC_DISPATCH(activate)(activation, x, count);
}
void silu_mul(const float* gate, const float* up, int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(silu_mul)(gate, up, count, out);
}
void add(const float* a, const float* b, int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(add)(a, b, count, out);
}
void rms_norm_row(const NormRowArgs& args) {
  HWY_DYNAMIC_DISPATCH(rms_norm_row)(args);
}
void layer_norm_row(const NormRowArgs& args) {
  HWY_DYNAMIC_DISPATCH(layer_norm_row)(args);
}
void l2_normalize_row(const NormRowArgs& args) {
  HWY_DYNAMIC_DISPATCH(l2_normalize_row)(args);
}
GroupMoments group_moments(const GroupMomentsArgs& args) {
  return HWY_DYNAMIC_DISPATCH(group_moments)(args);
}
void normalize_points(const NormalizePointsArgs& args) {
  HWY_DYNAMIC_DISPATCH(normalize_points)(args);
}
void rotate_head(const RotateArgs& args) {
  HWY_DYNAMIC_DISPATCH(rotate_head)(args);
}

}  // namespace volley
#endif  // HWY_ONCE
