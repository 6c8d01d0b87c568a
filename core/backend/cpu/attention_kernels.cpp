#include "core/backend/cpu/attention_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/backend/cpu/simd_targets.h"
#include "core/backend/cpu/vectors_ahead.h"
#include "core/backend/operations.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/attention_kernels.cpp"
#include "hwy/foreach_target.h"
// Must come after foreach_target.h.
#include "core/backend/cpu/unrolled-inl.h"
#include "core/backend/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
// Stores the sum of a vector's parts of four lanes.
template <class D>
HWY_INLINE void add_parts(D d, hn::Vec<D> parts, float* sums) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    hn::StoreU(parts, d, sums);
  } else {
    const hn::Half<D> half;
    add_parts(half, hn::Add(hn::LowerHalf(half, parts), hn::UpperHalf(half, parts)), sums);
  }
}

#endif

// Sums of the lanes of four vectors, each by the same tree of additions: first within parts of four lanes.
template <class D>
HWY_INLINE void sum_four([[maybe_unused]] D d, const hn::Vec<D>* vectors, float* sums) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    for (int k = 0; k < 4; ++k) sums[k] = hn::GetLane(vectors[k]);
  } else {
#if HWY_TARGET != HWY_SCALAR
    const auto halves = [&](auto a, auto b) {  // of each part: a0 + a2, b0 + b2, a1 + a3, b1 + b3
      return hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
    };
    const hn::Repartition<uint64_t, D> wide;
    const auto ab = hn::BitCast(wide, halves(vectors[0], vectors[1]));
    const auto cd = hn::BitCast(wide, halves(vectors[2], vectors[3]));
    const auto parts = hn::Add(hn::BitCast(d, hn::InterleaveLower(wide, ab, cd)),
                               hn::BitCast(d, hn::InterleaveUpper(wide, ab, cd)));
    add_parts(d, parts, sums);
#endif
  }
}

// Keys and values in f32 or, as words, in bf16, which is the upper half of an f32.
template <class D>
HWY_INLINE hn::Vec<D> load_elements(D d, const float* elements) {
  return hn::LoadU(d, elements);
}
template <class D>
HWY_INLINE hn::Vec<D> load_elements(D d, const uint16_t* elements) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> d16;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(d16, elements))));
}

template <class Element>
HWY_INLINE const Element* elements_at(const std::byte* elements, int64_t offset) {
  return reinterpret_cast<const Element*>(elements) + offset;
}

// x86 has 32 vector registers with AVX-512, 16 without.
constexpr int64_t kQueriesTogether = HWY_MAX_BYTES >= 64 ? kMostQueries : 3;
int64_t most_queries() {
  return kQueriesTogether;
}

// Scores of a chunk, with room for what is computed beyond its end.
constexpr int64_t kScoredTogether = 4;
constexpr int64_t kMostLanes = 16;
static_assert(kKeyChunk % kMostLanes == 0);
using Scores = float[kKeyChunk + kMostLanes];

// Which keys of a chunk: [begin, end).
struct KeyRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// Scores of kQueries queries, whose keys in the range lie where those of the first do. Four keys at a time,
// each in its own chain of lanes; of fewer, the last stands for the others.
template <class Element, int kQueries, class D>
HWY_INLINE void score_keys(D d, const AttentionChunkArgs& args, const AttentionQuery* queries,
                           const KeyRange& range, VectorsAhead& ahead, Scores* scores) {
  constexpr int kKeys = kScoredTogether;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t first = range.begin; first < range.end; first += kKeys) {
    hn::Vec<D> sums[kQueries][kKeys];
    const Element* keys[kKeys];
    unrolled<kKeys>([&](auto k) VOLLEY_UNROLLED {
      const int64_t offset = queries[0].offsets[std::min(first + k, range.end - 1)];
      keys[k] = elements_at<Element>(args.keys, offset);
      unrolled<kQueries>([&](auto q) VOLLEY_UNROLLED { sums[q][k] = hn::Zero(d); });
    });
    if (first % (2 * kKeys) == 0) ahead.step();
    for (int64_t i = 0; i < args.width; i += lanes) {
      hn::Vec<D> q_values[kQueries];
      unrolled<kQueries>([&](auto q) VOLLEY_UNROLLED { q_values[q] = hn::LoadU(d, queries[q].q + i); });
      unrolled<kKeys>([&](auto k) VOLLEY_UNROLLED {
        const auto key = load_elements(d, keys[k] + i);
        unrolled<kQueries>([&](auto q)
                               VOLLEY_UNROLLED { sums[q][k] = hn::MulAdd(q_values[q], key, sums[q][k]); });
      });
    }
    unrolled<kQueries>([&](auto q) VOLLEY_UNROLLED {
      float dots[kKeys];
      sum_four(d, sums[q], dots);
      for (int k = 0; k < kKeys; ++k) scores[q][first + k] = dots[k] * args.scale;
    });
  }
}

// Adds weighted values of kVectors vectors of the width to the sums of kQueries queries, even and odd keys in
// separate chains. A range begins with an even key; the first one of a chunk, with zeros.
template <class Element, int kQueries, int kVectors, class D>
HWY_INLINE void weigh_vectors(D d, const AttentionChunkArgs& args, const AttentionQuery* queries,
                              const Scores* weights, const KeyRange& range, VectorsAhead& ahead, int64_t at) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<D> sums[2][kQueries][kVectors];  // of even and of odd keys
  const auto each_sum = [&](const auto& body) VOLLEY_UNROLLED {
    unrolled<2>([&](auto odd) VOLLEY_UNROLLED {
      unrolled<kQueries>([&](auto q) VOLLEY_UNROLLED {
        unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
          body(sums[odd][q][v], queries[q].state->sums + odd * args.width + at + v * lanes);
        });
      });
    });
  };
  if (range.begin == 0) {
    each_sum([&](auto& sum, const float*) VOLLEY_UNROLLED { sum = hn::Zero(d); });
  } else {
    each_sum([&](auto& sum, const float* kept) VOLLEY_UNROLLED { sum = hn::LoadU(d, kept); });
  }
  const int64_t* offsets = queries[0].offsets;
  const auto add_key = [&](auto odd, int64_t key) VOLLEY_UNROLLED {
    const Element* from = elements_at<Element>(args.values, offsets[key] + at);
    hn::Vec<D> value[kVectors];
    unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED { value[v] = load_elements(d, from + v * lanes); });
    unrolled<kQueries>([&](auto q) VOLLEY_UNROLLED {
      const auto weight = hn::Set(d, weights[q][key]);
      unrolled<kVectors>(
          [&](auto v) VOLLEY_UNROLLED { sums[odd][q][v] = hn::MulAdd(weight, value[v], sums[odd][q][v]); });
    });
  };
  int64_t key = range.begin;
  for (; key + 2 <= range.end; key += 2) {
    if (key % 16 == 0) ahead.step();
    add_key(std::integral_constant<int, 0>(), key);
    add_key(std::integral_constant<int, 1>(), key + 1);
  }
  if (key < range.end) add_key(std::integral_constant<int, 0>(), key);
  each_sum([&](auto& sum, float* kept) VOLLEY_UNROLLED { hn::StoreU(sum, d, kept); });
}

template <class Element, int kQueries, class D>
HWY_INLINE void weigh_keys(D d, const AttentionChunkArgs& args, const AttentionQuery* queries,
                           const Scores* weights, const KeyRange& range, VectorsAhead& ahead) {
  constexpr int kVectors = kQueries == 1 ? 4 : 2;  // as many as leave the sums in registers
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t at = 0;
  for (; at + kVectors * lanes <= args.width; at += kVectors * lanes)
    weigh_vectors<Element, kQueries, kVectors>(d, args, queries, weights, range, ahead, at);
  for (; at < args.width; at += lanes)
    weigh_vectors<Element, kQueries, 1>(d, args, queries, weights, range, ahead, at);
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

// Calls with a pointer to nothing of the type that elements have in memory.
template <class Call>
HWY_INLINE void with_element(CacheType type, const Call& call) {
  if (type == CacheType::kBF16) return call(static_cast<const uint16_t*>(nullptr));
  call(static_cast<const float*>(nullptr));
}

void score_chunk(const ScoreArgs& args, float* scores) {
  const AttentionQuery query{.q = args.q, .offsets = args.offsets, .count = args.count};
  const AttentionChunkArgs chunk{
      .width = args.width, .scale = args.scale, .type = args.type, .keys = args.keys};
  HWY_ALIGN Scores padded[1];
  VectorsAhead ahead(chunk, args.offsets, 0);
  with_element(args.type, [&]<class Element>(const Element*) HWY_ATTR {
    with_dividing_tag(args.width, [&](auto d) HWY_ATTR {
      score_keys<Element, 1>(d, chunk, &query, {.end = args.count}, ahead, padded);
    });
  });
  std::copy_n(padded[0], args.count, scores);
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

// Joins what a chunk adds to what was known.
template <class D>
HWY_INLINE void join_sums(D d, const AttentionState& state, int64_t width, float keep, float gain) {
  for (int64_t at = 0; at < width; at += static_cast<int64_t>(hn::Lanes(d))) {
    const auto sum = hn::Add(hn::LoadU(d, state.sums + at), hn::LoadU(d, state.sums + width + at));
    const auto kept = hn::Mul(hn::LoadU(d, state.values + at), hn::Set(d, keep));
    hn::StoreU(hn::MulAdd(sum, hn::Set(d, gain), kept), d, state.values + at);
  }
}

template <class Element, int kQueries, class D>
HWY_INLINE void attend_queries(D d, const AttentionChunkArgs& args) {
  const AttentionQuery* queries = args.queries.data();
  HWY_ALIGN Scores weights[kQueries];
  VectorsAhead ahead(args, queries[0].offsets, args.shared);
  score_keys<Element, kQueries>(d, args, queries, {.end = args.shared}, ahead, weights);
  float keep[kQueries] = {}, gain[kQueries] = {};
  bool is_all_shared = true;
  for (int q = 0; q < kQueries; ++q) {
    const int64_t count = queries[q].count;
    if (count == 0) continue;
    is_all_shared = is_all_shared && count == args.shared;
    score_keys<Element, 1>(d, args, queries + q, {.begin = args.shared, .end = count}, ahead, weights + q);
    // Whole vectors: what stands behind the keys adds nothing.
    const int64_t whole = (count + kMostLanes - 1) / kMostLanes * kMostLanes;
    std::fill(weights[q] + count, weights[q] + whole, -std::numeric_limits<float>::infinity());
    const float greatest = greatest_of(weights[q], whole);
    const float sum = HWY_NAMESPACE::exponentiate(weights[q], whole, greatest);
    AttentionState& state = *queries[q].state;
    const float joined = std::max(state.maximum, greatest);
    keep[q] = std::exp(state.maximum - joined);
    gain[q] = std::exp(greatest - joined);
    state.denominator = state.denominator * keep[q] + sum * gain[q];
    state.maximum = joined;
    ahead.step();
  }
  const int64_t together = is_all_shared ? args.shared : args.shared / 2 * 2;
  if (together > 0) weigh_keys<Element, kQueries>(d, args, queries, weights, {.end = together}, ahead);
  for (int q = 0; q < kQueries; ++q) {
    const int64_t count = queries[q].count;
    if (count > together)
      weigh_keys<Element, 1>(d, args, queries + q, weights + q, {.begin = together, .end = count}, ahead);
    if (count > 0) join_sums(d, *queries[q].state, args.width, keep[q], gain[q]);
  }
  ahead.finish();
}

void attend_chunk(const AttentionChunkArgs& args) {
  VOLLEY_ASSERT(std::ssize(args.queries) <= kQueriesTogether);
  with_element(args.type, [&]<class Element>(const Element*) HWY_ATTR {
    with_dividing_tag(args.width, [&](auto d) HWY_ATTR {
      with_count<kQueriesTogether>(static_cast<int64_t>(args.queries.size()), [&](auto count) HWY_ATTR {
        attend_queries<Element, decltype(count)::value>(d, args);
      });
    });
  });
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
HWY_EXPORT(most_queries);
HWY_EXPORT(finish_attention);

void begin_attention(AttentionState& state, int64_t width) {
  state.maximum = -std::numeric_limits<float>::infinity();
  state.denominator = 0.0f;
  std::fill(state.values, state.values + width, 0.0f);
}
int64_t most_queries() {
  return HWY_DYNAMIC_DISPATCH(most_queries)();
}
void attend_chunk(const AttentionChunkArgs& args) {
  HWY_DYNAMIC_DISPATCH(attend_chunk)(args);
}
void finish_attention(const AttentionState& state, int64_t width, float* out) {
  HWY_DYNAMIC_DISPATCH(finish_attention)(state, width, out);
}
void score_chunk(const ScoreArgs& args, float* scores) {
  HWY_DYNAMIC_DISPATCH(score_chunk)(args, scores);
}
float exponentiate(float* scores, int64_t count, float maximum) {
  return HWY_DYNAMIC_DISPATCH(exponentiate)(scores, count, maximum);
}

}  // namespace volley
#endif  // HWY_ONCE
