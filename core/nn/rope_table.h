#pragma once

#include <cstdint>
#include <functional>

#include "core/nn/weights.h"

namespace volley {

// Cosines and sines of rotary embeddings, [positions, columns].
struct RopeTable {
  Weight cos;
  Weight sin;
};

// Frequencies 1 / theta^(2j / width) for j < width / 2.
std::vector<float> rope_frequencies(int64_t width, float theta);

// Frequencies scaled as Llama 3.1 does for contexts longer than it was trained for.
// Ref: meta-llama/llama-models, `apply_scaling`.
struct Llama3Scaling {
  float factor = 8.0f;
  float low_freq_factor = 1.0f;
  float high_freq_factor = 4.0f;
  float original_max_position = 8192.0f;
};
std::vector<float> llama3_frequencies(std::vector<float> frequencies, const Llama3Scaling& scaling);

enum class TableRounding : uint8_t { kNone, kBF16 };
// What stands in row 0.
enum class RopeOrigin : uint8_t {
  kPositionZero,  // row p is position p
  kNull,          // row 0 is zeros, which makes vectors zero; row p is position p - 1
};

struct RopeTableOptions {
  int64_t rows = 0;
  TableRounding rounding = TableRounding::kNone;
  RopeOrigin origin = RopeOrigin::kPositionZero;
};
RopeTable make_rope_table(const WeightLoader& loader, std::span<const float> frequencies,
                          const RopeTableOptions& options);

}  // namespace volley
