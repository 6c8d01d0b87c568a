#include "core/nn/rope_table.h"

#include <cmath>
#include <numbers>

namespace volley {

std::vector<float> rope_frequencies(int64_t width, float theta) {
  std::vector<float> frequencies;
  for (int64_t j = 0; j < width / 2; ++j) {
    frequencies.push_back(1.0f / std::pow(theta, static_cast<float>(2 * j) / static_cast<float>(width)));
  }
  return frequencies;
}

std::vector<float> llama3_frequencies(std::vector<float> frequencies, const Llama3Scaling& scaling) {
  const float low_wavelength = scaling.original_max_position / scaling.low_freq_factor;
  const float high_wavelength = scaling.original_max_position / scaling.high_freq_factor;
  for (float& frequency : frequencies) {
    const float wavelength = 2.0f * std::numbers::pi_v<float> / frequency;
    if (wavelength < high_wavelength) continue;
    if (wavelength > low_wavelength) {
      frequency /= scaling.factor;
      continue;
    }
    const float smooth = (scaling.original_max_position / wavelength - scaling.low_freq_factor) /
                         (scaling.high_freq_factor - scaling.low_freq_factor);
    frequency = (1.0f - smooth) * frequency / scaling.factor + smooth * frequency;
  }
  return frequencies;
}

RopeTable make_rope_table(const WeightLoader& loader, std::span<const float> frequencies,
                          const RopeTableOptions& options) {
  const auto columns = static_cast<int64_t>(frequencies.size());
  std::vector<float> cosines, sines;
  const auto rounded = [&](float value) {
    return options.rounding == TableRounding::kBF16 ? bf16_to_f32(f32_to_bf16(value)) : value;
  };
  for (int64_t row = 0; row < options.rows; ++row) {
    const bool is_null = options.origin == RopeOrigin::kNull && row == 0;
    const auto position = static_cast<float>(options.origin == RopeOrigin::kNull ? row - 1 : row);
    for (float frequency : frequencies) {
      const float angle = position * frequency;  // the references round the angle to f32 here
      cosines.push_back(is_null ? 0.0f : rounded(std::cos(angle)));
      sines.push_back(is_null ? 0.0f : rounded(std::sin(angle)));
    }
  }
  return {.cos = loader.tensor(cosines, {options.rows, columns}),
          .sin = loader.tensor(sines, {options.rows, columns})};
}

}  // namespace volley
