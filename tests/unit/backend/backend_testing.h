#pragma once

// What the backend tests share: random numbers, arrays between guard bytes, the backends under test.

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/reference/reference_backend.h"
#include "tests/support/sanitized.h"

namespace volley::testing {

inline constexpr double kUnit = 0x1p-24;  // largest relative error of one f32 operation

using test::kSanitized;

// Set by the flags of the test program: which kernels multiply.
inline ProductKernels tested_products = ProductKernels::kBest;

inline std::shared_ptr<const Backend> cpu(int64_t threads = 2) {
  return make_cpu_backend(threads, tested_products);
}

inline std::vector<float> normal_numbers(int64_t count, uint64_t seed, float deviation = 1.0f) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

// An array in a backend's memory with guard bytes on both sides, which its destructor checks.
template <typename T>
class Guarded {
 public:
  Guarded(const Backend& backend, Shape shape, std::span<const T> values = {}) : shape_(shape) {
    const int64_t bytes = shape.size() * static_cast<int64_t>(sizeof(T));
    memory_ = backend.allocate(bytes + 2 * kGuard);
    std::memset(memory_.data(), kPattern, static_cast<size_t>(bytes + 2 * kGuard));
    if (!values.empty()) {
      VOLLEY_ASSERT(static_cast<int64_t>(values.size()) == shape.size());
      std::memcpy(data(), values.data(), static_cast<size_t>(bytes));
    }
  }
  Guarded(const Backend& backend, Shape shape, const std::vector<T>& values)
      : Guarded(backend, shape, std::span<const T>(values)) {}
  ~Guarded() {
    const std::byte* end = memory_.data() + kGuard + shape_.size() * static_cast<int64_t>(sizeof(T));
    for (int64_t i = 0; i < kGuard; ++i) {
      EXPECT_EQ(memory_.data()[i], std::byte{kPattern}) << "byte " << i - kGuard << " before the array";
      EXPECT_EQ(end[i], std::byte{kPattern}) << "byte " << i << " after the array";
    }
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() const { return reinterpret_cast<T*>(memory_.data() + kGuard); }
  View<T> view() const { return {data(), shape_}; }
  View<const T> read() const { return {data(), shape_}; }
  std::vector<T> values() const { return std::vector<T>(data(), data() + shape_.size()); }

 private:
  static constexpr int64_t kGuard = 64;
  static constexpr unsigned char kPattern = 0xa5;
  Buffer memory_;
  Shape shape_;
};

// A weight as a checkpoint would hold it.
inline HostView host_view(const std::vector<float>& values, Shape shape) {
  return {.data = reinterpret_cast<const std::byte*>(values.data()), .dtype = DType::kF32, .shape = shape};
}

// First index at which the bits differ, or -1.
template <typename T>
int64_t first_difference(std::span<const T> a, std::span<const T> b) {
  if (a.size() != b.size()) return 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(T)) != 0) return static_cast<int64_t>(i);
  }
  return -1;
}
template <typename T>
int64_t first_difference(const std::vector<T>& a, const std::vector<T>& b) {
  return first_difference(std::span<const T>(a), std::span<const T>(b));
}

}  // namespace volley::testing
