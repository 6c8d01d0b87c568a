#include "core/backend/cpu/sampling_kernels.h"

#include <cmath>
#include <limits>

#include "core/backend/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/sampling_kernels.cpp"
#include "hwy/foreach_target.h"
// Must come after foreach_target.h.
#include "core/backend/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {

#if HWY_NATIVE_FMA

// noise_log, operation for operation.
template <class D>
HWY_INLINE hn::Vec<D> vector_noise_log(D d, hn::Vec<D> x) {
  const hn::RebindToSigned<D> di;
  const auto set = [&](float value) HWY_ATTR { return hn::Set(d, value); };
  const auto shifted = hn::Add(hn::BitCast(di, x), hn::Set(di, 0x3f800000 - 0x3f3504f3));
  // x is positive, so `shifted` is too and the arithmetic shift equals the oracle's logical one.
  const auto exponent = hn::ConvertTo(d, hn::Sub(hn::ShiftRight<23>(shifted), hn::Set(di, 127)));
  const auto mantissa = hn::Add(hn::And(shifted, hn::Set(di, 0x007fffff)), hn::Set(di, 0x3f3504f3));
  const auto f = hn::Sub(hn::BitCast(d, mantissa), set(1.0f));
  const auto z = hn::Mul(f, f);
  auto p = set(7.0376836292e-2f);
  p = hn::MulAdd(p, f, set(-1.1514610310e-1f));
  p = hn::MulAdd(p, f, set(1.1676998740e-1f));
  p = hn::MulAdd(p, f, set(-1.2420140846e-1f));
  p = hn::MulAdd(p, f, set(1.4249322787e-1f));
  p = hn::MulAdd(p, f, set(-1.6668057665e-1f));
  p = hn::MulAdd(p, f, set(2.0000714765e-1f));
  p = hn::MulAdd(p, f, set(-2.4999993993e-1f));
  p = hn::MulAdd(p, f, set(3.3333331174e-1f));
  auto y = hn::Mul(hn::Mul(p, f), z);
  y = hn::MulAdd(exponent, set(-2.12194440e-4f), y);
  y = hn::MulAdd(set(-0.5f), z, y);
  return hn::MulAdd(exponent, set(0.693359375f), hn::Add(f, y));
}

// Philox for as many blocks at once as there are 64-bit lanes: a lane's low half holds the number, its high
// half is whatever the products left, which the next product does not read.
void gumbel_row(const NoiseKey& key, int64_t count, float* HWY_RESTRICT out) {
  const hn::ScalableTag<uint64_t> d64;
  const hn::Repartition<uint32_t, decltype(d64)> d32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d64));
  const auto word = [&](uint32_t value) HWY_ATTR { return hn::Set(d64, uint64_t{value}); };
  const auto multiply = [&](hn::Vec<decltype(d64)> a, hn::Vec<decltype(d64)> b)
                            HWY_ATTR { return hn::MulEven(hn::BitCast(d32, a), hn::BitCast(d32, b)); };
  const auto low = hn::Set(d64, uint64_t{0xffffffffu});
  for (int64_t block = 0; block * 4 < count; block += lanes) {
    auto c0 = hn::Iota(d64, static_cast<uint64_t>(block));
    auto c1 = word(key.position), c2 = word(key.draw);
    auto c3 = word((static_cast<uint32_t>(key.purpose) << 24) | (key.stream & 0xffffffu));
    uint32_t key0 = static_cast<uint32_t>(key.seed), key1 = static_cast<uint32_t>(key.seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const auto product0 = multiply(word(0xD2511F53u), c0);
      const auto product1 = multiply(word(0xCD9E8D57u), c2);
      c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(product1), c1), word(key0));
      c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(product0), c3), word(key1));
      c1 = product1;
      c3 = product0;
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    // Ids 4b, 4b + 1 in one 64-bit word, 4b + 2, 4b + 3 in the next.
    const auto first = hn::Or(hn::And(c0, low), hn::ShiftLeft<32>(c1));
    const auto second = hn::Or(hn::And(c2, low), hn::ShiftLeft<32>(c3));
    hn::StoreInterleaved2(first, second, d64, reinterpret_cast<uint64_t*>(out + block * 4));
  }
  const int64_t padded = (count + 4 * lanes - 1) / (4 * lanes) * (4 * lanes);
  auto* bits = reinterpret_cast<uint32_t*>(out);
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  for (int64_t i = 0; i < padded; i += static_cast<int64_t>(hn::Lanes(d))) {
    const auto shifted = hn::ShiftRight<9>(hn::LoadU(d32, bits + i));
    const auto whole = hn::ConvertTo(d, hn::BitCast(di, shifted));
    const auto uniform = hn::Mul(hn::Add(whole, hn::Set(d, 0.5f)), hn::Set(d, 0x1p-23f));
    const auto inner = hn::Neg(vector_noise_log(d, uniform));
    hn::StoreU(hn::Neg(vector_noise_log(d, inner)), d, out + i);
  }
}

#else  // without fused multiply-adds the oracle itself does the work

void gumbel_row(const NoiseKey& key, int64_t count, float* out) {
  for (int64_t id = 0; id < count; id += 4) {
    const auto bits = noise_block(key, static_cast<uint32_t>(id / 4));
    for (int64_t i = 0; i < 4; ++i) out[id + i] = gumbel_from_bits(bits[i]);
  }
}

#endif  // HWY_NATIVE_FMA

int32_t choose_token(const float* logits, const float* noise, int64_t count) {
  // The largest value of each stretch first; the index only in the stretch that wins.
  constexpr int64_t kStretch = 256;
  float best = -std::numeric_limits<float>::infinity();
  int64_t best_begin = -1;
  for (int64_t begin = 0; begin < count; begin += kStretch) {
    const int64_t end = begin + kStretch < count ? begin + kStretch : count;
    float largest = -std::numeric_limits<float>::infinity();
    const hn::ScalableTag<float> dv;
    auto lane_largest = hn::Set(dv, largest);
    for_each_vector(begin, end, [&](auto d, int64_t i) HWY_ATTR {
      auto value = hn::LoadU(d, logits + i);
      if (noise != nullptr) value = hn::Add(value, hn::LoadU(d, noise + i));
      if constexpr (hn::MaxLanes(decltype(d)()) == 1) {
        largest = hn::GetLane(value) > largest ? hn::GetLane(value) : largest;
      } else {
        lane_largest = hn::Max(lane_largest, value);
      }
    });
    const float vector_largest = hn::GetLane(hn::MaxOfLanes(dv, lane_largest));
    largest = vector_largest > largest ? vector_largest : largest;
    if (largest > best) {
      best = largest;
      best_begin = begin;
    }
  }
  if (best_begin < 0) return -1;
  for (int64_t i = best_begin;; ++i) {
    if ((noise != nullptr ? logits[i] + noise[i] : logits[i]) == best) return static_cast<int32_t>(i);
  }
}

float softmax_row(const float* logits, int64_t count, float* distribution) {
  const float maximum = greatest_of(logits, count);
  const hn::ScalableTag<float> dv;
  auto sums = hn::Zero(dv), weighted = hn::Zero(dv);
  float sum = 0.0f, weighted_sum = 0.0f;
  for_each_vector(0, count, [&](auto d, int64_t i) HWY_ATTR {
    const auto below = hn::Sub(hn::LoadU(d, logits + i), hn::Set(d, maximum));
    const auto p = exponential(d, below);
    hn::StoreU(p, d, distribution + i);
    // p * log p without the normaliser; excluded tokens would give 0 * -inf.
    const auto term = hn::IfThenElseZero(hn::Gt(p, hn::Zero(d)), hn::Mul(p, below));
    if constexpr (hn::MaxLanes(decltype(d)()) == 1) {
      sum += hn::GetLane(p);
      weighted_sum += hn::GetLane(term);
    } else {
      sums = hn::Add(sums, p);
      weighted = hn::Add(weighted, term);
    }
  });
  const double total = double{sum} + hn::GetLane(hn::SumOfLanes(dv, sums));
  const double total_weighted = double{weighted_sum} + hn::GetLane(hn::SumOfLanes(dv, weighted));
  const auto scale = static_cast<float>(1.0 / total);
  for_each_vector(0, count, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Mul(hn::LoadU(d, distribution + i), hn::Set(d, scale)), d, distribution + i);
  });
  const double entropy = std::log(total) - total_weighted / total;
  return static_cast<float>(entropy > 0.0 ? entropy : 0.0);
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace volley {

HWY_EXPORT(gumbel_row);
HWY_EXPORT(choose_token);
HWY_EXPORT(softmax_row);

void gumbel_row(const NoiseKey& key, int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(gumbel_row)(key, count, out);
}
int32_t choose_token(std::span<const float> logits, const float* noise) {
  return HWY_DYNAMIC_DISPATCH(choose_token)(logits.data(), noise, static_cast<int64_t>(logits.size()));
}
float softmax_row(std::span<const float> logits, float* distribution) {
  return HWY_DYNAMIC_DISPATCH(softmax_row)(logits.data(), static_cast<int64_t>(logits.size()), distribution);
}

}  // namespace volley
#endif  // HWY_ONCE
