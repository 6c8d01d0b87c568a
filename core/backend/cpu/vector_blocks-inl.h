// What the products of packed weights have in common, included once for each target.

#if defined(VOLLEY_VECTOR_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VOLLEY_VECTOR_BLOCKS_INL_H_
#undef VOLLEY_VECTOR_BLOCKS_INL_H_
#else
#define VOLLEY_VECTOR_BLOCKS_INL_H_
#endif

#include <algorithm>

#include "core/backend/cpu/ahead_lines.h"
#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/packed_weight.h"
#include "core/backend/cpu/unrolled-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Lanes of a group of 16 features that one vector holds.
using Floats = hn::CappedTag<float, kGroupColumns>;
using Words = hn::RebindToSigned<Floats>;
using Halves = hn::Rebind<hwy::float16_t, Floats>;
constexpr int kLanes = hn::MaxLanes(Floats());
constexpr int kVectors = kGroupColumns / kLanes;

// Rows of a block: as many as leave their sums in registers.
constexpr int kBlockRows = HWY_MAX_BYTES >= 64 ? 8 : HWY_MAX_BYTES >= 32 ? 6 : 2;
constexpr int kFourBitRows = HWY_MAX_BYTES >= 64 ? 8 : HWY_MAX_BYTES >= 32 ? 4 : 2;

// Groups that are multiplied side by side, one step of the depth after the other: memory is read faster in
// several places at a time than in one.
constexpr int64_t kStreams = 2;

// Asks for what is multiplied next, a share of it in each step of a loop over `steps`, so that memory is read
// all the time and not only in the first of several passes over a panel.
class Ahead {
 public:
  Ahead(const WeightStretch& next, int64_t steps)
      : panels_(next.panels, next.panel_bytes, steps), scales_(next.scales, next.scale_bytes, steps) {}
  HWY_INLINE void step() {
    panels_.step();
    scales_.step();
  }

 private:
  AheadLines panels_;
  AheadLines scales_;
};

// Sums of some rows and groups, in memory between the steps of the depth.
template <int kRows>
struct Sums {
  hn::Vec<Floats> of[kStreams][kRows][kVectors];

  HWY_INLINE void clear() {
    for (auto& group : of) {
      for (auto& row : group) {
        for (auto& sum : row) sum = hn::Zero(Floats());
      }
    }
  }
  HWY_INLINE void store(const GroupedProductArgs& args, int64_t row, int64_t group, int64_t count) const {
    for (int64_t g = 0; g < count; ++g) {
      for (int r = 0; r < kRows; ++r) {
        float* out = args.out + ((row + r) * args.groups + group + g) * kGroupColumns;
        for (int v = 0; v < kVectors; ++v) hn::StoreU(of[g][r][v], Floats(), out + v * kLanes);
      }
    }
  }
};

// What a group has in memory, and in how many steps a block of rows multiplies kStreams of them.
struct GroupExtents {
  int64_t panel_bytes = 0;
  int64_t scales = 0;
  int64_t steps = 0;
};

// Multiplies blocks of at most kMost rows with kStreams groups side by side, which stay in the cache for all
// blocks while the next ones are asked for. multiply(n, row, group, count, ahead) multiplies n (a constant)
// rows with `count` groups.
template <int kMost, class Multiply>
HWY_INLINE void for_blocks(const GroupedProductArgs& args, const GroupExtents& extents,
                           const Multiply& multiply) {
  const RowBlocks blocks(args.rows, kMost);
  for (int64_t group = 0; group < args.groups; group += kStreams) {
    const int64_t next = std::min(group + kStreams, args.groups);
    const int64_t next_count = std::min(kStreams, args.groups - next);
    const WeightStretch stretch{
        .panels = args.panels + next * extents.panel_bytes,
        .panel_bytes = next_count * extents.panel_bytes,
        .scales = args.scales + next * extents.scales,
        .scale_bytes = next_count * extents.scales * static_cast<int64_t>(sizeof(*args.scales))};
    Ahead ahead(next_count > 0 ? stretch : args.next, blocks.count * extents.steps);
    for (int64_t b = 0; b < blocks.count; ++b) {
      with_count<kMost>(blocks.size(b), [&](auto rows) HWY_ATTR {
        multiply(rows, blocks.begin(b), group, next - group, ahead);
      });
    }
  }
}

// a[2i] * b[2i] + a[2i + 1] * b[2i + 1] of the i16 halves of each word.
HWY_INLINE hn::Vec<Words> dot_pairs(hn::Vec<Words> a, hn::Vec<Words> b) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  return hn::Vec<Words>{_mm512_madd_epi16(a.raw, b.raw)};
#elif HWY_TARGET == HWY_AVX2
  return hn::Vec<Words>{_mm256_madd_epi16(a.raw, b.raw)};
#elif HWY_TARGET == HWY_SSE4
  return hn::Vec<Words>{_mm_madd_epi16(a.raw, b.raw)};
#else
  const auto low = [](auto v) { return hn::ShiftRight<16>(hn::ShiftLeft<16>(v)); };
  return hn::Add(hn::Mul(low(a), low(b)), hn::Mul(hn::ShiftRight<16>(a), hn::ShiftRight<16>(b)));
#endif
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each target
