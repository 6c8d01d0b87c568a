#include "core/decode/head_guesses.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "core/backend/sampling.h"

namespace volley {
namespace {

// Candidates that stand for tokens of the path.
std::vector<int32_t> candidates_of(const DraftHeadsTraits& heads, std::span<const int32_t> path) {
  if (heads.target_ids.empty()) return {path.begin(), path.end()};
  std::vector<int32_t> found;
  for (const int32_t token : path) {
    const auto at = std::ranges::lower_bound(heads.target_ids, token);
    if (at != heads.target_ids.end() && *at == token)
      found.push_back(static_cast<int32_t>(at - heads.target_ids.begin()));
  }
  return found;
}

// Noise of tokens that are asked for in increasing order.
class TokenNoise {
 public:
  explicit TokenNoise(const NoiseKey& key) : key_(key) {}
  float operator()(int32_t token) {
    const auto id = static_cast<uint32_t>(token);
    if (id / 4 != block_) {
      block_ = id / 4;
      bits_ = noise_block(key_, block_);
    }
    return gumbel_from_bits(bits_[id % 4]);
  }

 private:
  NoiseKey key_;
  uint32_t block_ = UINT32_MAX;
  std::array<uint32_t, 4> bits_{};
};

// e^x of an x <= 0, within 3e-7 of it, or e^-87 where that is more. No branches and no calls: a loop of it
// becomes vectors.
float exponential_below_zero(float x) {
  constexpr float kMagic = 0x1.8p23f;  // brings a small number's whole part to the lowest bits
  // Of negative numbers the larger one has the smaller bits.
  const float inside =
      std::bit_cast<float>(std::min(std::bit_cast<uint32_t>(x), std::bit_cast<uint32_t>(-87.0f)));
  const float shifted = inside * 1.44269504f + kMagic;
  const float whole = shifted - kMagic;
  const float r = (inside - whole * 0.693359375f) - whole * -2.12194440e-4f;
  const float p =
      ((((r * (1.0f / 720.0f) + 1.0f / 120.0f) * r + 1.0f / 24.0f) * r + 1.0f / 6.0f) * r + 0.5f) * r + 1.0f;
  const uint32_t exponent = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kMagic) + 127;
  return (p * r + 1.0f) * std::bit_cast<float>(exponent << 23);
}

// The first of the greatest, of which one at least is no less than minus infinity. By blocks, so that it
// becomes vectors.
int32_t first_greatest(std::span<const float> scores) {
  constexpr size_t kBlock = 64;
  std::array<float, kBlock> most;
  most.fill(sampling::kExcluded);
  size_t i = 0;
  for (; i + kBlock <= scores.size(); i += kBlock) {
    const float* block = scores.data() + i;
    for (size_t lane = 0; lane < kBlock; ++lane)
      most[lane] = block[lane] > most[lane] ? block[lane] : most[lane];
  }
  for (; i < scores.size(); ++i) most[0] = std::max(most[0], scores[i]);
  const float greatest = *std::ranges::max_element(most);
  return static_cast<int32_t>(std::ranges::find(scores, greatest) - scores.begin());
}

// Candidates of the `count` greatest scores, greatest first, ties to the lowest; of what is not excluded.
std::vector<int32_t> greatest(std::span<const float> scores, int64_t count) {
  if (count == 1) {
    const int32_t first = first_greatest(scores);
    if (scores[static_cast<size_t>(first)] == sampling::kExcluded) return {};
    return {first};
  }
  std::vector<int32_t> left;
  left.reserve(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] != sampling::kExcluded) left.push_back(static_cast<int32_t>(i));
  }
  const auto kept = std::min(count, std::ssize(left));
  const auto score_of = [&](int32_t candidate) { return scores[static_cast<size_t>(candidate)]; };
  std::ranges::partial_sort(left, left.begin() + kept, [&](int32_t a, int32_t b) {
    return score_of(a) != score_of(b) ? score_of(a) > score_of(b) : a < b;
  });
  left.resize(static_cast<size_t>(kept));
  return left;
}

// Of e^(score - largest); what is excluded adds next to nothing.
double sum_of_exponentials(std::span<const float> scores, float largest) {
  constexpr size_t kBlock = 64;
  std::array<float, kBlock> sums{};
  size_t i = 0;
  for (; i + kBlock <= scores.size(); i += kBlock) {
    const float* block = scores.data() + i;
    for (size_t lane = 0; lane < kBlock; ++lane) sums[lane] += exponential_below_zero(block[lane] - largest);
  }
  double total = 0.0;
  for (; i < scores.size(); ++i) total += exponential_below_zero(scores[i] - largest);
  for (const float sum : sums) total += sum;
  return total;
}

}  // namespace

std::vector<HeadGuess> best_guesses(const DraftHeadsTraits& heads, std::span<const float> logits,
                                    const GuessPlace& place, int64_t count) {
  const auto size = static_cast<int64_t>(logits.size());
  VOLLEY_ASSERT(size == heads.candidates());
  std::vector<float> allowed;  // under a constraint
  if (place.cursor) {
    std::vector<float> bias;  // [vocab]
    if (!place.cursor.add_bias(heads.vocab_size, bias)) return {};
    allowed.assign(logits.begin(), logits.end());
    for (int64_t i = 0; i < size; ++i)
      allowed[static_cast<size_t>(i)] += bias[static_cast<size_t>(heads.token(i))];
  }
  std::vector<int32_t> seen;
  if (place.chain.repetition_penalty != 1.0f) seen = candidates_of(heads, place.path);
  const SampleRow row =
      make_sample_row(place.chain, place.output, {}, {.count = static_cast<int32_t>(seen.size())});
  std::vector<float> scores(logits.size());
  sampling::processed_logits({.logits = {allowed.empty() ? logits.data() : allowed.data(), {1, size}},
                              .path = {seen.data(), {std::ssize(seen)}}},
                             row, scores);
  if (row.temperature > 0.0f) {
    std::vector<float> values;
    std::vector<int32_t> order;
    sampling::filter(row, scores, values, order);
  }

  if (row.temperature > 0.0f && place.noise == GuessNoise::kTargets) {
    TokenNoise noise(sampling::noise_key(row));
    for (int64_t i = 0; i < size; ++i) {
      float& score = scores[static_cast<size_t>(i)];
      if (score != sampling::kExcluded) score += noise(heads.token(i));
    }
  }
  const std::vector<int32_t> best = greatest(scores, count);
  if (best.empty()) return {};
  const float most = scores[static_cast<size_t>(best[0])];
  const double total = sum_of_exponentials(scores, most);
  std::vector<HeadGuess> guesses;
  for (const int32_t candidate : best) {
    const double below = static_cast<double>(scores[static_cast<size_t>(candidate)]) - most;
    guesses.push_back({.token = heads.token(candidate), .probability = std::exp(below) / total});
  }
  return guesses;
}

}  // namespace volley
