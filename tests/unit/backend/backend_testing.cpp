// Numbers for the backend tests, most of whose time goes into making them: compiled with the optimiser.
#include "tests/unit/backend/backend_testing.h"

#include <random>

namespace volley::testing {

std::vector<float> normal_numbers(int64_t count, uint64_t seed, float deviation) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

std::vector<float> cached_numbers(CacheType type, std::vector<float> values) {
  if (type == CacheType::kBF16) {
    for (float& value : values) value = bf16_to_f32(f32_to_bf16(value));
  }
  return values;
}

std::vector<std::byte> cache_bytes(CacheType type, const std::vector<float>& numbers) {
  std::vector<std::byte> bytes(numbers.size() * static_cast<size_t>(cache_element_bytes(type)));
  if (type == CacheType::kF32) {
    std::memcpy(bytes.data(), numbers.data(), bytes.size());
    return bytes;
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    const uint16_t rounded = f32_to_bf16(numbers[i]);
    std::memcpy(bytes.data() + 2 * i, &rounded, 2);
  }
  return bytes;
}

std::vector<float> numbers_of_cache(CacheType type, const std::vector<std::byte>& bytes) {
  std::vector<float> numbers(bytes.size() / static_cast<size_t>(cache_element_bytes(type)));
  if (type == CacheType::kF32) {
    std::memcpy(numbers.data(), bytes.data(), bytes.size());
    return numbers;
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    numbers[i] = bf16_to_f32(bits);
  }
  return numbers;
}

}  // namespace volley::testing
