#include "tests/bench/arithmetic_rate.h"

#include <algorithm>
#include <vector>

#include "core/backend/cpu/simd_targets.h"
#include "core/base/error.h"
#include "core/base/thread_pool.h"
#include "core/decode/statistics.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/arithmetic_rate.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Enough chains that no addition waits for the one before it. The compiler may not know the factors, or it
// would add up without multiplying.
constexpr int kChains = 12;

// Operations of `rounds` rounds; the sum keeps them from being left out.
double multiply_f32(int64_t rounds, float& sum) {
  const hn::ScalableTag<float> d;
  volatile float one = 1.0f;
  const auto a = hn::Set(d, one), b = hn::Set(d, one);
  hn::Vec<decltype(d)> sums[kChains];
  for (auto& s : sums) s = hn::Zero(d);
  for (int64_t i = 0; i < rounds; ++i) {
    for (auto& s : sums) s = hn::MulAdd(a, b, s);
  }
  for (const auto& s : sums) sum += hn::GetLane(s);
  return static_cast<double>(rounds) * kChains * static_cast<double>(hn::Lanes(d)) * 2;
}

// 0 where the vector kernels have no such instruction.
double multiply_int16([[maybe_unused]] int64_t rounds, float& sum) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  const hn::ScalableTag<int32_t> d;
  const auto factors = hn::Set(d, 0x00010001);
  // Written as instructions: a compiler sees that all sums are alike, or moves them about in memory.
  const auto add_dots = [&](auto& s) HWY_ATTR {
    auto dots = s;
    asm volatile("vpmaddwd %[b], %[b], %[p]\n\tvpaddd %[p], %[s], %[s]"
                 : [s] "+v"(s.raw), [p] "=&v"(dots.raw)
                 : [b] "v"(factors.raw));
  };
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  for (int64_t i = 0; i < rounds; ++i) {
    add_dots(s0), add_dots(s1), add_dots(s2), add_dots(s3);
    add_dots(s4), add_dots(s5), add_dots(s6), add_dots(s7);
  }
  const auto all =
      hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)));
  sum += static_cast<float>(hn::GetLane(all));
  return static_cast<double>(rounds) * 8 * static_cast<double>(hn::Lanes(d)) * 4;
#else
  sum += 1.0f;
  return 0.0;
#endif
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace volley {
namespace {
HWY_EXPORT(multiply_f32);
HWY_EXPORT(multiply_int16);
}  // namespace

double arithmetic_rate(Arithmetic arithmetic, int64_t threads) {
  constexpr int64_t kRounds = int64_t{1} << 24;
  ThreadPool pool(threads);
  std::vector<float> sums(static_cast<size_t>(threads));
  std::vector<double> operations(static_cast<size_t>(threads));
  double best = 0.0;
  for (int i = 0; i < 5; ++i) {
    double seconds = 0.0;
    {
      const StopWatch watch(seconds);
      pool.parallel_for(threads, [&](int64_t t) {
        const auto at = static_cast<size_t>(t);
        operations[at] = arithmetic == Arithmetic::kF32
                             ? HWY_DYNAMIC_DISPATCH(multiply_f32)(kRounds, sums[at])
                             : HWY_DYNAMIC_DISPATCH(multiply_int16)(kRounds, sums[at]);
      });
    }
    double all = 0.0;
    for (const double o : operations) all += o;
    best = std::max(best, all / seconds);
  }
  for (const float sum : sums) VOLLEY_ASSERT(sum > 0.0f);
  return best;
}

}  // namespace volley
#endif  // HWY_ONCE
