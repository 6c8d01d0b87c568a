// Functions of vectors, included once for each target (no `#pragma once` on purpose).

#if defined(VOLLEY_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VOLLEY_VECTOR_MATH_INL_H_
#undef VOLLEY_VECTOR_MATH_INL_H_
#else
#define VOLLEY_VECTOR_MATH_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <limits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls op(tag, index) for vectors of elements from `begin` on, then for single ones. A lane's result does
// not depend on its place, so an element has the same bits in a vector and alone.
template <class Op>
HWY_INLINE void for_each_vector(int64_t begin, int64_t end, const Op& op) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) op(d, i);
  const hn::CappedTag<float, 1> d1;
  for (; i < end; ++i) op(d1, i);
}

// Nearest bf16 as the upper half of each lane's bits.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> bf16_bits([[maybe_unused]] D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x00400000u));
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet, rounded);
}

// The greatest of some numbers; with a NaN among them any, or -infinity.
HWY_INLINE float greatest_of(const float* x, int64_t count) {
  const hn::ScalableTag<float> d;
  float rest = -std::numeric_limits<float>::infinity();
  auto most = hn::Set(d, rest);
  for_each_vector(0, count, [&](auto di, int64_t i) HWY_ATTR {
    if constexpr (hn::MaxLanes(decltype(di)()) == 1) {
      rest = x[i] > rest ? x[i] : rest;
    } else {
      most = hn::Max(most, hn::LoadU(di, x + i));
    }
  });
  return std::max(rest, hn::GetLane(hn::MaxOfLanes(d, most)));
}

// e^x, infinite where the result is too large (Highway's own is undefined there).
template <class D>
HWY_INLINE hn::Vec<D> exponential(D d, hn::Vec<D> x) {
  const auto most = hn::Set(d, 88.72f);
  const auto infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  return hn::IfThenElse(hn::Gt(x, most), infinity, hn::Exp(d, hn::Min(x, most)));
}

template <class D>
HWY_INLINE hn::Vec<D> silu(D d, hn::Vec<D> x) {
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), exponential(d, hn::Neg(x))));
}

// erf by the rational approximation of Eigen (odd 13th over even 8th degree on [-4, 4], a few ulp).
template <class D>
HWY_INLINE hn::Vec<D> error_function(D d, hn::Vec<D> value) {
  const auto x = hn::Max(hn::Set(d, -4.0f), hn::Min(value, hn::Set(d, 4.0f)));
  const auto x2 = hn::Mul(x, x);
  auto p = hn::Set(d, -2.72614225801306e-10f);
  p = hn::MulAdd(p, x2, hn::Set(d, 2.77068142495902e-08f));
  p = hn::MulAdd(p, x2, hn::Set(d, -2.10102402082508e-06f));
  p = hn::MulAdd(p, x2, hn::Set(d, -5.69250639462346e-05f));
  p = hn::MulAdd(p, x2, hn::Set(d, -7.34990630326855e-04f));
  p = hn::MulAdd(p, x2, hn::Set(d, -2.95459980854025e-03f));
  p = hn::MulAdd(p, x2, hn::Set(d, -1.60960333262415e-02f));
  auto q = hn::Set(d, -1.45660718464996e-05f);
  q = hn::MulAdd(q, x2, hn::Set(d, -2.13374055278905e-04f));
  q = hn::MulAdd(q, x2, hn::Set(d, -1.68282697438203e-03f));
  q = hn::MulAdd(q, x2, hn::Set(d, -7.37332916720468e-03f));
  q = hn::MulAdd(q, x2, hn::Set(d, -1.42647390514189e-02f));
  return hn::Div(hn::Mul(x, p), q);
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each target
