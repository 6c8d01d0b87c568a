#pragma once

// What the backend tests share: random numbers, arrays between guard bytes, the backends under test.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
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

// Set by the flags of the test program: which device is tested, and which kernels multiply on the cpu.
inline std::string tested_device = "cpu";
inline ProductKernels tested_products = ProductKernels::kBest;

inline bool tests_cpu() {
  return tested_device == "cpu";
}

// The backend under test. Other devices than the cpu are opened once; they have no threads.
inline std::shared_ptr<const Backend> tested_backend(int64_t threads = 2) {
  if (tests_cpu()) return make_cpu_backend(threads, tested_products);
  static const std::shared_ptr<const Backend> device = make_backend(tested_device, 0);
  return device;
}

// Copies between host memory and a backend's.
class Transfer {
 public:
  static void to(const Backend& backend, const void* host, void* device, int64_t bytes) {
    if (bytes == 0) return;
    if (is_host(backend)) {
      std::memcpy(device, host, static_cast<size_t>(bytes));
    } else {
      queue().upload(host, device, bytes);
      queue().finish();
    }
  }
  static void from(const Backend& backend, const void* device, void* host, int64_t bytes) {
    if (bytes == 0) return;
    if (is_host(backend)) {
      std::memcpy(host, device, static_cast<size_t>(bytes));
    } else {
      queue().download(device, host, bytes);
    }
  }

 private:
  static bool is_host(const Backend& backend) { return backend.info().name.starts_with("cpu"); }
  static Queue& queue() {
    static const std::shared_ptr<const Backend> backend = tested_backend();
    static const std::unique_ptr<Queue> queue = backend->make_queue();
    return *queue;
  }
};

std::vector<float> normal_numbers(int64_t count, uint64_t seed, float deviation = 1.0f);

// An array in a backend's memory with guard bytes on both sides, which its destructor checks.
template <typename T>
class Guarded {
 public:
  Guarded(const Backend& backend, Shape shape, std::span<const T> values = {})
      : backend_(backend), memory_(backend.allocate(bytes_of(shape) + 2 * kGuard)), shape_(shape) {
    std::vector<std::byte> host(static_cast<size_t>(memory_.bytes()), kPattern);
    if (!values.empty()) {
      VOLLEY_ASSERT(static_cast<int64_t>(values.size()) == shape.size());
      std::memcpy(host.data() + kGuard, values.data(), values.size_bytes());
    }
    Transfer::to(backend, host.data(), memory_.data(), memory_.bytes());
  }
  Guarded(const Backend& backend, Shape shape, const std::vector<T>& values)
      : Guarded(backend, shape, std::span<const T>(values)) {}
  ~Guarded() {
    std::array<std::byte, kGuard> before, after;
    Transfer::from(backend_, memory_.data(), before.data(), kGuard);
    Transfer::from(backend_, memory_.data() + memory_.bytes() - kGuard, after.data(), kGuard);
    for (size_t i = 0; i < kGuard; ++i) {
      EXPECT_EQ(before[i], kPattern) << "byte " << kGuard - i << " before the array";
      EXPECT_EQ(after[i], kPattern) << "byte " << i << " after the array";
    }
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  View<T> view() const { return {reinterpret_cast<T*>(memory_.data() + kGuard), shape_}; }
  View<const T> read() const { return view(); }
  std::vector<T> values() const {
    std::vector<T> host(static_cast<size_t>(shape_.size()));
    Transfer::from(backend_, view().data, host.data(), bytes_of(shape_));
    return host;
  }

 private:
  static constexpr int64_t kGuard = 64;
  static constexpr std::byte kPattern{0xa5};
  static int64_t bytes_of(const Shape& shape) { return shape.size() * static_cast<int64_t>(sizeof(T)); }

  const Backend& backend_;
  Buffer memory_;
  Shape shape_;
};

// Types of caches; every backend's operations take them all.
inline constexpr std::array<CacheType, 2> kCacheTypes{CacheType::kF32, CacheType::kBF16};
inline std::string cache_type_name(CacheType type) {
  return type == CacheType::kF32 ? "f32" : "bf16";
}

// The numbers that a cache holds in place of `values`.
std::vector<float> cached_numbers(CacheType type, std::vector<float> values);
// Numbers as bytes of such a cache, and back.
std::vector<std::byte> cache_bytes(CacheType type, const std::vector<float>& numbers);
std::vector<float> numbers_of_cache(CacheType type, const std::vector<std::byte>& bytes);

// A plane of a cache in a backend's memory, between guard bytes.
class GuardedPlane {
 public:
  struct Numbers {
    std::vector<float> keys;  // of the plane's shape
    std::vector<float> values;
  };
  GuardedPlane(const Backend& backend, CacheType type, Shape shape, const Numbers& numbers)
      : shape_(shape),
        type_(type),
        keys_(backend, byte_shape(), cache_bytes(type, numbers.keys)),
        values_(backend, byte_shape(), cache_bytes(type, numbers.values)) {}

  CachePlane plane() const {
    return {.keys = keys_.view().data, .values = values_.view().data, .shape = shape_, .type = type_};
  }
  Numbers numbers() const {
    return {numbers_of_cache(type_, keys_.values()), numbers_of_cache(type_, values_.values())};
  }

 private:
  Shape byte_shape() const { return {shape_.size() * cache_element_bytes(type_)}; }

  Shape shape_;
  CacheType type_;
  Guarded<std::byte> keys_, values_;
};

// A weight as a checkpoint would hold it.
inline HostView host_view(const std::vector<float>& values, Shape shape) {
  return {.data = reinterpret_cast<const std::byte*>(values.data()), .dtype = DType::kF32, .shape = shape};
}

// Whether products of normed rows have bits of their own (NormedLinearsArgs).
inline bool scales_sums(const Backend& backend, const LinearsArgs& args) {
  return !backend.info().name.starts_with("cpu") && args.phase != Phase::kEncoder &&
         std::ranges::all_of(args.targets, [](const LinearTarget& target) {
           return target.weight->type == WeightType::kBF16;
         });
}
// What has the bits of normed_linears: its parts; or itself, where it has bits of its own: then what is
// tested is what is around it, or a recording.
inline void run_parts(Queue& queue, const Backend& backend, const NormedLinearsArgs& args) {
  if (scales_sums(backend, args.linears)) return queue.normed_linears(args);
  queue.rms_norm(args.norm);
  queue.linears(args.linears);
}
inline void run_parts(Queue& queue, const Backend& backend, const NormedGatedLinearsArgs& args) {
  const GatedLinearsArgs& gated = args.linears;
  const std::array targets{gated.gate, gated.up};
  run_parts(queue, backend,
            {.norm = args.norm, .linears = {.x = gated.x, .targets = targets, .phase = gated.phase}});
  queue.silu_mul({.gate = gated.gate.out, .up = gated.up.out, .out = gated.out});
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
