#include "core/backend/cpu/attention_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/backend/cpu/simd_targets.h"
#include "core/backend/operations.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/attention_kernels.cpp"
#include "hwy/foreach_target.h"
// Must come after foreach_target.h.
#include "core/backend/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {

// Sums of the lanes of four vectors, each by the same tree of additions.
template <class D>
HWY_INLINE void sum_four([[maybe_unused]] D d, const hn::Vec<D>* vectors, float* sums) {
#if HWY_TARGET == HWY_SCALAR
  for (int k = 0; k < 4; ++k) sums[k] = hn::GetLane(vectors[k]);
#else
  if constexpr (hn::MaxLanes(D()) == 1) {
    for (int k = 0; k < 4; ++k) sums[k] = hn::GetLane(vectors[k]);
  } else if constexpr (hn::MaxLanes(D()) == 4) {
    const auto halves = [&](auto a, auto b) {  // a0 + a2, b0 + b2, a1 + a3, b1 + b3
      return hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
    };
    const hn::Repartition<uint64_t, D> wide;
    const auto ab = hn::BitCast(wide, halves(vectors[0], vectors[1]));
    const auto cd = hn::BitCast(wide, halves(vectors[2], vectors[3]));
    const auto lower = hn::BitCast(d, hn::InterleaveLower(wide, ab, cd));
    const auto upper = hn::BitCast(d, hn::InterleaveUpper(wide, ab, cd));
    hn::StoreU(hn::Add(lower, upper), d, sums);
  } else {
    const hn::Half<D> half;
    hn::Vec<decltype(half)> narrower[4];
    for (int k = 0; k < 4; ++k) {
      narrower[k] = hn::Add(hn::LowerHalf(half, vectors[k]), hn::UpperHalf(half, vectors[k]));
    }
    sum_four(half, narrower, sums);
  }
#endif
}

// Asks for part of a vector, into the second-level cache.
HWY_INLINE void ask_for(const float* elements, int64_t count) {
  constexpr int64_t kLine = 16;
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(elements + i, 0, 2);
}

// Dot products of q with four keys, each in its own chain of lanes; of fewer, the last stands for the others.
template <class D>
HWY_INLINE void score_with(D d, const AttentionChunkArgs& args, float* scores) {
  constexpr int64_t kKeys = 4;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t first = 0; first < args.count; first += kKeys) {
    hn::Vec<D> sums[kKeys];
    const float* keys[kKeys];
    for (int64_t k = 0; k < kKeys; ++k) {
      sums[k] = hn::Zero(d);
      const int64_t offset = args.offsets[std::min(first + k, args.count - 1)];
      keys[k] = args.keys + offset;
      if (args.asks_for_values) ask_for(args.values + offset, args.width);
    }
    for (int64_t i = 0; i < args.width; i += lanes) {
      const auto q = hn::LoadU(d, args.q + i);
      for (int64_t k = 0; k < kKeys; ++k) sums[k] = hn::MulAdd(q, hn::LoadU(d, keys[k] + i), sums[k]);
    }
    float dots[kKeys];
    sum_four(d, sums, dots);
    for (int64_t k = 0; k < std::min(kKeys, args.count - first); ++k)
      scores[first + k] = dots[k] * args.scale;
  }
}

// Values of kVectors vectors of the width, even and odd keys in separate chains.
template <int kVectors, class D>
HWY_INLINE void weigh_values(D d, const AttentionChunkArgs& args, const float* weights, int64_t at,
                             float keep, float gain, float* values) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<D> even[kVectors], odd[kVectors];
  for (int v = 0; v < kVectors; ++v) even[v] = odd[v] = hn::Zero(d);
  const float* base = args.values + at;
  int64_t i = 0;
  for (; i + 2 <= args.count; i += 2) {
    const auto w0 = hn::Set(d, weights[i]), w1 = hn::Set(d, weights[i + 1]);
    const float* v0 = base + args.offsets[i];
    const float* v1 = base + args.offsets[i + 1];
    if (args.next_keys != 0) {
      ask_for(args.keys + args.next_keys + args.offsets[i] + at, kVectors * lanes);
      ask_for(args.keys + args.next_keys + args.offsets[i + 1] + at, kVectors * lanes);
    }
    for (int v = 0; v < kVectors; ++v) {
      even[v] = hn::MulAdd(w0, hn::LoadU(d, v0 + v * lanes), even[v]);
      odd[v] = hn::MulAdd(w1, hn::LoadU(d, v1 + v * lanes), odd[v]);
    }
  }
  if (i < args.count) {
    const auto w0 = hn::Set(d, weights[i]);
    for (int v = 0; v < kVectors; ++v) {
      even[v] = hn::MulAdd(w0, hn::LoadU(d, base + args.offsets[i] + v * lanes), even[v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    float* total = values + at + v * lanes;
    const auto kept = hn::Mul(hn::LoadU(d, total), hn::Set(d, keep));
    hn::StoreU(hn::MulAdd(hn::Add(even[v], odd[v]), hn::Set(d, gain), kept), d, total);
  }
}

template <class D>
HWY_INLINE void weigh_with(D d, const AttentionChunkArgs& args, const float* weights, float keep, float gain,
                           float* values) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t at = 0;
  for (; at + 4 * lanes <= args.width; at += 4 * lanes)
    weigh_values<4>(d, args, weights, at, keep, gain, values);
  for (; at + 2 * lanes <= args.width; at += 2 * lanes)
    weigh_values<2>(d, args, weights, at, keep, gain, values);
  for (; at < args.width; at += lanes) weigh_values<1>(d, args, weights, at, keep, gain, values);
}

// The widest vectors that divide the head width: a choice by shape, so no element is ever a tail.
template <class Call>
HWY_INLINE void with_dividing_tag(int64_t width, const Call& call) {
  if constexpr (hn::MaxLanes(hn::ScalableTag<float>()) >= 16) {
    if (width % 16 == 0) return call(hn::CappedTag<float, 16>());
  }
  if constexpr (hn::MaxLanes(hn::ScalableTag<float>()) >= 8) {
    if (width % 8 == 0) return call(hn::CappedTag<float, 8>());
  }
  if (width % 4 == 0) return call(hn::CappedTag<float, 4>());
  call(hn::CappedTag<float, 1>());
}

void score_chunk(const AttentionChunkArgs& args, float* scores) {
  with_dividing_tag(args.width, [&](auto d) HWY_ATTR { score_with(d, args, scores); });
}

float exponentiate(float* scores, int64_t count, float maximum) {
  const hn::ScalableTag<float> dv;
  auto sums = hn::Zero(dv);
  float tail = 0.0f;
  for_each_vector(0, count, [&](auto d, int64_t i) HWY_ATTR {
    const auto p = exponential(d, hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, maximum)));
    hn::StoreU(p, d, scores + i);
    if constexpr (hn::MaxLanes(decltype(d)()) == 1) {
      tail += hn::GetLane(p);
    } else {
      sums = hn::Add(sums, p);
    }
  });
  return hn::GetLane(hn::SumOfLanes(dv, sums)) + tail;
}

void attend_chunk(const AttentionChunkArgs& args, AttentionState& state) {
  HWY_ALIGN float weights[kKeyChunk];
  HWY_NAMESPACE::score_chunk(args, weights);
  float chunk_maximum = weights[0];
  for (int64_t i = 1; i < args.count; ++i)
    chunk_maximum = weights[i] > chunk_maximum ? weights[i] : chunk_maximum;
  const float chunk_sum = HWY_NAMESPACE::exponentiate(weights, args.count, chunk_maximum);
  const float joined = std::max(state.maximum, chunk_maximum);
  const float keep = std::exp(state.maximum - joined), gain = std::exp(chunk_maximum - joined);
  state.denominator = state.denominator * keep + chunk_sum * gain;
  state.maximum = joined;
  with_dividing_tag(args.width,
                    [&](auto d) HWY_ATTR { weigh_with(d, args, weights, keep, gain, state.values); });
}

void finish_attention(const AttentionState& state, int64_t width, float* out) {
  for_each_vector(0, width, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Div(hn::LoadU(d, state.values + i), hn::Set(d, state.denominator)), d, out + i);
  });
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace volley {

HWY_EXPORT(score_chunk);
HWY_EXPORT(exponentiate);
HWY_EXPORT(attend_chunk);
HWY_EXPORT(finish_attention);

void begin_attention(AttentionState& state, int64_t width) {
  state.maximum = -std::numeric_limits<float>::infinity();
  state.denominator = 0.0f;
  std::fill(state.values, state.values + width, 0.0f);
}
void attend_chunk(const AttentionChunkArgs& args, AttentionState& state) {
  HWY_DYNAMIC_DISPATCH(attend_chunk)(args, state);
}
void finish_attention(const AttentionState& state, int64_t width, float* out) {
  HWY_DYNAMIC_DISPATCH(finish_attention)(state, width, out);
}
void score_chunk(const AttentionChunkArgs& args, float* scores) {
  HWY_DYNAMIC_DISPATCH(score_chunk)(args, scores);
}
float exponentiate(float* scores, int64_t count, float maximum) {
  return HWY_DYNAMIC_DISPATCH(exponentiate)(scores, count, maximum);
}

}  // namespace volley
#endif  // HWY_ONCE
