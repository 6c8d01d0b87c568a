#pragma once

// Counter-based noise: every random number of a generation is a pure function of what it is for, so that it
// does not depend on the batch, the method, the threads or the backend.
// Ref: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32-10).

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "core/base/host_device.h"

namespace volley {

// What a number is drawn for. Values are part of the output's identity: never renumber.
enum class NoisePurpose : uint32_t {
  kToken = 0,     // Gumbel noise of the sampling rule
  kAccept = 1,    // uniforms of accept/reject tests
  kResidual = 2,  // Gumbel noise of the draw from a residual distribution
  kOrder = 3,     // permutations of output positions
  kMask = 4,      // which places a masked model hides
  kInit = 5,      // first guesses of a parallel method
  kDraft = 6,     // Gumbel noise of drafts that are accepted by rejection
};

// Names one block of numbers. `position` is the index in the output (for a random-order image model the grid
// cell), never a slot or a padded index; `draw` counts iterations or attempts.
struct NoiseKey {
  uint64_t seed = 0;
  uint32_t stream = 0;  // which of the generations that share a seed; below 2^24
  NoisePurpose purpose = NoisePurpose::kToken;
  uint32_t draw = 0;
  uint32_t position = 0;
};

// Ten rounds of Philox4x32.
VOLLEY_HOST_DEVICE constexpr std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter,
                                                                   uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// The four numbers that belong to ids 4 * block .. 4 * block + 3 (token ids, or plain indices).
VOLLEY_HOST_DEVICE constexpr std::array<uint32_t, 4> noise_block(const NoiseKey& key, uint32_t block) {
  return philox4x32_10(
      {block, key.position, key.draw, (static_cast<uint32_t>(key.purpose) << 24) | (key.stream & 0xffffffu)},
      static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32));
}

VOLLEY_HOST_DEVICE constexpr uint32_t noise_bits(const NoiseKey& key, uint32_t id) {
  return noise_block(key, id / 4)[id % 4];
}

// Uniform in (0, 1), exactly representable: 23 bits and a half.
VOLLEY_HOST_DEVICE constexpr float uniform_from_bits(uint32_t bits) {
  return (static_cast<float>(bits >> 9) + 0.5f) * 0x1p-23f;
}

// Natural logarithm of a positive normal float: one polynomial in explicit fused operations, the same bits on
// every backend (about 1 ulp; the coefficients are Cephes' logf).
VOLLEY_HOST_DEVICE inline float noise_log(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  // Mantissa in [sqrt(1/2), sqrt(2)): shift the exponent border to sqrt(1/2).
  const uint32_t shifted = bits + (0x3f800000u - 0x3f3504f3u);
  const float exponent = static_cast<float>(static_cast<int32_t>(shifted >> 23) - 127);
  const float f = std::bit_cast<float>((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  const float z = f * f;
  float p = 7.0376836292e-2f;
  p = fmaf(p, f, -1.1514610310e-1f);
  p = fmaf(p, f, 1.1676998740e-1f);
  p = fmaf(p, f, -1.2420140846e-1f);
  p = fmaf(p, f, 1.4249322787e-1f);
  p = fmaf(p, f, -1.6668057665e-1f);
  p = fmaf(p, f, 2.0000714765e-1f);
  p = fmaf(p, f, -2.4999993993e-1f);
  p = fmaf(p, f, 3.3333331174e-1f);
  float y = p * f * z;
  y = fmaf(exponent, -2.12194440e-4f, y);
  y = fmaf(-0.5f, z, y);
  return fmaf(exponent, 0.693359375f, f + y);
}

// Standard Gumbel noise, -log(-log u).
VOLLEY_HOST_DEVICE inline float gumbel_from_bits(uint32_t bits) {
  return -noise_log(-noise_log(uniform_from_bits(bits)));
}

VOLLEY_HOST_DEVICE inline float gumbel(const NoiseKey& key, uint32_t token) {
  return gumbel_from_bits(noise_bits(key, token));
}

VOLLEY_HOST_DEVICE constexpr float uniform(const NoiseKey& key, uint32_t id) {
  return uniform_from_bits(noise_bits(key, id));
}

}  // namespace volley
