#pragma once

#include <cstdint>
#include <memory>

#include "core/backend/backend.h"
#include "core/backend/cpu/linear.h"

namespace volley {

// `cpu`: vector kernels, oneDNN's products where the processor has kernels for them, `threads` threads (0:
// physical cores). Neither the thread count nor the company of a row or picture changes any bit of a result.
std::shared_ptr<const Backend> make_cpu_backend(int64_t threads);

// The same with the kernels of products given, for tests and benchmarks.
std::shared_ptr<const Backend> make_cpu_backend(int64_t threads, ProductKernels kernels);

// Makes this process run as on a processor that has AVX2 and nothing wider, for benchmarks. Must come before
// the first backend. Throws Error when oneDNN refuses.
void limit_to_avx2();

}  // namespace volley
