// Loops over constants, included once for each target (no `#pragma once` on purpose).

#if defined(VOLLEY_UNROLLED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VOLLEY_UNROLLED_INL_H_
#undef VOLLEY_UNROLLED_INL_H_
#else
#define VOLLEY_UNROLLED_INL_H_
#endif

#include <type_traits>
#include <utility>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {

// Calls body(0) ... body(kCount - 1) with constants. GCC keeps an array in registers only if it sees every
// index as a constant before it unrolls loops.
#undef VOLLEY_UNROLLED
#define VOLLEY_UNROLLED HWY_ATTR __attribute__((always_inline))
template <int kCount, class Body>
HWY_INLINE void unrolled(const Body& body) {
  [&]<int... i>(std::integer_sequence<int, i...>) VOLLEY_UNROLLED {
    (body(std::integral_constant<int, i>()), ...);
  }
  (std::make_integer_sequence<int, kCount>());
}

// Calls run(std::integral_constant<int, n>) for n = count, 1 <= count <= kMost.
template <int kMost, class Run>
HWY_INLINE void with_count(int64_t count, const Run& run) {
  if constexpr (kMost > 1) {
    if (count < kMost) return with_count<kMost - 1>(count, run);
  }
  run(std::integral_constant<int, kMost>());
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each target
