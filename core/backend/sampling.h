#pragma once

// The sampling rule in scalar form, written once: host backends call it, others are tested against it.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "core/backend/operations.h"
#include "core/base/noise.h"

namespace volley::sampling {

inline constexpr float kExcluded = -std::numeric_limits<float>::infinity();

// Penalty, guidance and temperature: fills `logits` with what the filters see.
inline void processed_logits(const SampleArgs& args, const SampleRow& row, std::span<float> logits) {
  const int64_t vocab = static_cast<int64_t>(logits.size());
  const float* conditional = args.logits.data + row.logits_row * vocab;
  std::copy(conditional, conditional + vocab, logits.begin());
  if (row.repetition_penalty != 1.0f) {
    for (int32_t i = 0; i < row.path_count; ++i) {
      const int32_t id = args.path.data[row.path_begin + i];
      if (id < 0 || id >= vocab) continue;  // a condition, which the model cannot choose
      const float value = conditional[id];  // a token counts once, however often it stands on the path
      logits[id] = value > 0.0f ? value / row.repetition_penalty : value * row.repetition_penalty;
    }
  }
  if (row.guidance_row >= 0) {
    const float* unconditional = args.logits.data + row.guidance_row * vocab;
    for (int64_t i = 0; i < vocab; ++i) {
      logits[i] = unconditional[i] + row.guidance_scale * (logits[i] - unconditional[i]);
    }
  }
  if (row.temperature > 0.0f && row.temperature != 1.0f) {
    for (float& value : logits) value /= row.temperature;
  }
  // What is no number cannot be chosen; a row of nothing else is reported by choose(). On bits, so that the
  // loop becomes vectors.
  for (float& value : logits) {
    const auto bits = std::bit_cast<uint32_t>(value);
    const bool is_finite = (bits & 0x7fffffffu) < 0x7f800000u;
    value = std::bit_cast<float>(is_finite ? bits : std::bit_cast<uint32_t>(kExcluded));
  }
}

// Excludes every token below the k-th largest logit; ties with it stay.
inline void filter_top_k(int32_t k, std::span<float> logits, std::vector<float>& scratch) {
  if (k <= 0 || k >= static_cast<int64_t>(logits.size())) return;
  scratch.assign(logits.begin(), logits.end());
  std::nth_element(scratch.begin(), scratch.begin() + (k - 1), scratch.end(), std::greater<>());
  const float threshold = scratch[k - 1];
  for (float& value : logits) {
    if (value < threshold) value = kExcluded;
  }
}

// Keeps the first tokens, by (logit descending, id ascending), until their mass reaches p; at least one.
inline void filter_top_p(float p, std::span<float> logits, std::vector<int32_t>& order) {
  if (p >= 1.0f) return;
  order.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] != kExcluded) order.push_back(static_cast<int32_t>(i));
  }
  if (order.empty()) return;
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  const float maximum = logits[order[0]];
  double total = 0.0;
  for (int32_t id : order) total += std::exp(static_cast<double>(logits[id] - maximum));
  double mass = 0.0;
  size_t kept = 0;
  while (kept < order.size() && (kept == 0 || mass < p * total)) {
    mass += std::exp(static_cast<double>(logits[order[kept++]] - maximum));
  }
  for (size_t i = kept; i < order.size(); ++i) logits[order[i]] = kExcluded;
}

inline void filter(const SampleRow& row, std::span<float> logits, std::vector<float>& values,
                   std::vector<int32_t>& order) {
  if (row.filter_order == FilterOrder::kTopKTopP) {
    filter_top_k(row.top_k, logits, values);
    filter_top_p(row.top_p, logits, order);
  } else {
    filter_top_p(row.top_p, logits, order);
    filter_top_k(row.top_k, logits, values);
  }
}

inline NoiseKey noise_key(const SampleRow& row) {
  return {.seed = row.seed,
          .stream = row.stream,
          .purpose = static_cast<NoisePurpose>(row.noise_purpose),
          .draw = row.draw,
          .position = row.position};
}

// argmax(logits + Gumbel noise), or argmax(logits) when greedy; ties go to the lowest id. -1: no token can be
// chosen.
inline int32_t choose(const SampleRow& row, std::span<const float> logits) {
  const NoiseKey key = noise_key(row);
  int32_t best = -1;
  float best_value = kExcluded;
  for (uint32_t block = 0; block * 4 < logits.size(); ++block) {
    const auto bits = row.temperature > 0.0f ? noise_block(key, block) : std::array<uint32_t, 4>{};
    for (uint32_t lane = 0; lane < 4 && block * 4 + lane < logits.size(); ++lane) {
      const uint32_t id = block * 4 + lane;
      if (logits[id] == kExcluded) continue;
      const float value = row.temperature > 0.0f ? logits[id] + gumbel_from_bits(bits[lane]) : logits[id];
      if (value > best_value) {
        best_value = value;
        best = static_cast<int32_t>(id);
      }
    }
  }
  return best;
}

// Softmax of the filtered logits, of which one is a number, into `distribution`; returns its entropy in nats.
inline float softmax(std::span<const float> logits, std::span<float> distribution) {
  const float maximum = *std::max_element(logits.begin(), logits.end());
  double total = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    distribution[i] = std::exp(logits[i] - maximum);
    total += distribution[i];
  }
  const auto scale = static_cast<float>(1.0 / total);
  double entropy = 0.0;
  for (float& p : distribution) {
    p *= scale;
    if (p > 0.0f) entropy -= static_cast<double>(p) * std::log(static_cast<double>(p));
  }
  return static_cast<float>(entropy);
}

// The likeliest tokens by (probability descending, id ascending), when they are wanted.
inline void write_top(const SampleArgs& args, int64_t row, std::span<const float> distribution,
                      std::vector<int32_t>& order) {
  if (args.top_tokens.data == nullptr) return;
  const int64_t count = args.top_tokens.shape[1];
  order.resize(distribution.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int32_t a, int32_t b) {
    return distribution[a] != distribution[b] ? distribution[a] > distribution[b] : a < b;
  });
  for (int64_t i = 0; i < count; ++i) {
    args.top_tokens.data[row * count + i] = order[i];
    args.top_probability.data[row * count + i] = distribution[order[i]];
  }
}

// Whether more than the token is.
inline bool wants_distribution(const SampleArgs& args) {
  return args.probability.data != nullptr || args.distribution.data != nullptr ||
         args.top_tokens.data != nullptr;
}

// What is written for a row of which no token can be chosen.
inline void write_no_choice(const SampleArgs& args, int64_t row) {
  const int64_t vocab = args.logits.shape[1];
  args.tokens.data[row] = -1;
  if (args.probability.data != nullptr) {
    args.entropy.data[row] = 0.0f;
    args.probability.data[row] = 0.0f;
  }
  if (args.distribution.data != nullptr) std::fill_n(args.distribution.data + row * vocab, vocab, 0.0f);
  if (args.top_tokens.data == nullptr) return;
  const int64_t count = args.top_tokens.shape[1];
  std::fill_n(args.top_tokens.data + row * count, count, -1);
  std::fill_n(args.top_probability.data + row * count, count, 0.0f);
}

}  // namespace volley::sampling
