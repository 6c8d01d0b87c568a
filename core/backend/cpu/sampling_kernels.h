#pragma once

// Vector kernels of sampling. Noise and choice are bit-equal to core/base/noise.h and core/backend/sampling.h.

#include <cstdint>
#include <span>

#include "core/base/noise.h"

namespace volley {

// Gumbel noise of ids 0 .. count - 1. `out` has room for `count` rounded up to kGumbelPadding.
void gumbel_row(const NoiseKey& key, int64_t count, float* out);
inline constexpr int64_t kGumbelPadding = 64;

// Lowest index of the largest of logits[i] (+ noise[i] unless noise is null); excluded tokens (-inf) never win, and 0
// is the answer when nothing is left.
int32_t choose_token(std::span<const float> logits, const float* noise);

// Softmax into `distribution`; returns the entropy in nats.
float softmax_row(std::span<const float> logits, float* distribution);

}  // namespace volley
