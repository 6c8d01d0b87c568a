#include "core/decode/head_guesses.h"

#include <algorithm>
#include <array>
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

}  // namespace

std::vector<HeadGuess> best_guesses(const DraftHeadsTraits& heads, std::span<const float> logits,
                                    const GuessPlace& place, int64_t count) {
  const auto size = static_cast<int64_t>(logits.size());
  VOLLEY_ASSERT(size == heads.candidates());
  std::vector<float> allowed(logits.begin(), logits.end());
  if (place.cursor) {
    std::vector<float> bias;  // [vocab]
    if (!place.cursor.add_bias(heads.vocab_size, bias)) return {};
    for (int64_t i = 0; i < size; ++i)
      allowed[static_cast<size_t>(i)] += bias[static_cast<size_t>(heads.token(i))];
  }
  std::vector<int32_t> seen;
  if (place.chain.repetition_penalty != 1.0f) seen = candidates_of(heads, place.path);
  const SampleRow row =
      make_sample_row(place.chain, place.output, {}, {.count = static_cast<int32_t>(seen.size())});
  std::vector<float> scores(logits.size());
  sampling::processed_logits(
      {.logits = {allowed.data(), {1, size}}, .path = {seen.data(), {std::ssize(seen)}}}, row, scores);
  if (row.temperature > 0.0f) {
    std::vector<float> values;
    std::vector<int32_t> order;
    sampling::filter(row, scores, values, order);
  }

  const bool is_noisy = row.temperature > 0.0f && place.noise == GuessNoise::kTargets;
  TokenNoise noise(sampling::noise_key(row));
  std::vector<int32_t> left;  // candidates
  for (int64_t i = 0; i < size; ++i) {
    float& score = scores[static_cast<size_t>(i)];
    if (score == sampling::kExcluded) continue;
    if (is_noisy) score += noise(heads.token(i));
    left.push_back(static_cast<int32_t>(i));
  }
  if (left.empty()) return {};
  const auto kept = std::min(count, std::ssize(left));
  const auto score_of = [&](int32_t candidate) { return scores[static_cast<size_t>(candidate)]; };
  std::ranges::partial_sort(left, left.begin() + kept, [&](int32_t a, int32_t b) {
    return score_of(a) != score_of(b) ? score_of(a) > score_of(b) : a < b;
  });
  const double best = score_of(left[0]);
  double total = 0.0;
  for (const int32_t candidate : left) total += std::exp(score_of(candidate) - best);
  std::vector<HeadGuess> guesses;
  for (const int32_t candidate : std::span(left).first(static_cast<size_t>(kept))) {
    guesses.push_back(
        {.token = heads.token(candidate), .probability = std::exp(score_of(candidate) - best) / total});
  }
  return guesses;
}

}  // namespace volley
