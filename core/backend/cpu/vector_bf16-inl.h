// Products of bf16 weights, included once for each target.

#if defined(VOLLEY_VECTOR_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VOLLEY_VECTOR_BF16_INL_H_
#undef VOLLEY_VECTOR_BF16_INL_H_
#else
#define VOLLEY_VECTOR_BF16_INL_H_
#endif

#include "core/backend/cpu/vector_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Groups whose sums lie in registers together: a multiply-add waits for the one before it in the same sum.
template <int kRows>
constexpr int groups_together() {
  constexpr int kSums = 8;  // at most
  return kSums / (kRows * kVectors) >= 2 ? 2 : 1;
}

// A step of the depth for some groups.
template <int kRows, int kGroups>
HWY_INLINE void add_bf16_products(const float* x, int64_t row_stride, const int32_t* panel,
                                  int64_t panel_words, hn::Vec<Floats> (*sums)[kRows][kVectors]) {
  const Floats d;
  const Words words;
  const auto upper = hn::Set(words, static_cast<int32_t>(0xffff0000u));
  hn::Vec<Floats> now[kGroups][kRows][kVectors];
  const auto each_sum = [&](const auto& body) VOLLEY_UNROLLED {
    unrolled<kGroups>([&](auto g) VOLLEY_UNROLLED {
      unrolled<kRows>([&](auto r) VOLLEY_UNROLLED {
        unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED { body(g, r, v); });
      });
    });
  };
  each_sum([&](auto g, auto r, auto v) VOLLEY_UNROLLED { now[g][r][v] = sums[g][r][v]; });
  for (int64_t k = 0; k < kDepthStep; k += 2, panel += kGroupColumns) {
    unrolled<kGroups>([&](auto g) VOLLEY_UNROLLED {
      hn::Vec<Floats> weight[kVectors];
      const auto add_products = [&](int64_t at) VOLLEY_UNROLLED {
        unrolled<kRows>([&](auto r) VOLLEY_UNROLLED {
          const auto value = hn::Set(d, x[r * row_stride + at]);
          unrolled<kVectors>(
              [&](auto v) VOLLEY_UNROLLED { now[g][r][v] = hn::MulAdd(value, weight[v], now[g][r][v]); });
        });
      };
      const int32_t* from = panel + g * panel_words;
      unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
        weight[v] = hn::BitCast(d, hn::ShiftLeft<16>(hn::LoadU(words, from + v * kLanes)));
      });
      add_products(k);
      unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
        weight[v] = hn::BitCast(d, hn::And(hn::LoadU(words, from + v * kLanes), upper));
      });
      add_products(k + 1);
    });
  }
  each_sum([&](auto g, auto r, auto v) VOLLEY_UNROLLED { sums[g][r][v] = now[g][r][v]; });
}

template <int kRows>
void multiply_bf16_groups(const GroupedProductArgs& args, int64_t row, int64_t group, int64_t count,
                          Ahead& ahead) {
  const int64_t panel_words = args.segments * args.segment_depth * kGroupColumns / 2;
  const auto* panel = reinterpret_cast<const int32_t*>(args.panels) + group * panel_words;
  const auto* x = static_cast<const float*>(args.x) + row * args.row_stride;
  Sums<kRows> sums;
  sums.clear();
  for (int64_t s = 0; s < args.segments; ++s) {
    const float* segment = x + args.offsets[s];
    for (int64_t k = 0; k < args.segment_depth; k += kDepthStep, panel += kDepthStep * kGroupColumns / 2) {
      constexpr int kTogether = groups_together<kRows>();
      int64_t g = 0;
      for (; g + kTogether <= count; g += kTogether) {
        for (int i = 0; i < kTogether; ++i) ahead.step();
        add_bf16_products<kRows, kTogether>(segment + k, args.row_stride, panel + g * panel_words,
                                            panel_words, sums.of + g);
      }
      for (; g < count; ++g) {
        ahead.step();
        add_bf16_products<kRows, 1>(segment + k, args.row_stride, panel + g * panel_words, panel_words,
                                    sums.of + g);
      }
    }
  }
  sums.store(args, row, group, count);
}

void multiply_bf16(const GroupedProductArgs& args) {
  const int64_t depth = args.segments * args.segment_depth;
  for_blocks<kBlockRows>(
      args, {.panel_bytes = depth * kGroupColumns * 2, .steps = kStreams * (depth / kDepthStep)},
      [&](auto rows, int64_t row, int64_t group, int64_t count, Ahead& ahead)
          HWY_ATTR { multiply_bf16_groups<decltype(rows)::value>(args, row, group, count, ahead); });
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each target
