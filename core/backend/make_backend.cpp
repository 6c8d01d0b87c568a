#include <charconv>
#include <string>

#include "core/backend/backend.h"
#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/reference/reference_backend.h"
#include "core/backend/plan_backend.h"
#include "core/base/machine.h"
#if VOLLEY_CUDA
#include "core/backend/cuda/cuda_backend.h"
#endif

namespace volley {
namespace {

constexpr std::string_view kCuda = "cuda:";

// N of "cuda:N", or -1.
int64_t cuda_index(std::string_view device) {
  if (!device.starts_with(kCuda)) return -1;
  const std::string_view digits = device.substr(kCuda.size());
  int64_t index = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  const bool whole = error == std::errc() && end == digits.data() + digits.size();
  return whole && index >= 0 && index < 1024 ? index : -1;
}

#if !VOLLEY_CUDA
int64_t cuda_devices() {
  return 0;
}
int64_t cuda_free_bytes(int64_t) {
  return 0;
}
std::shared_ptr<const Backend> make_cuda_backend(int64_t device) {
  throw Error("--device cuda:" + std::to_string(device) + ": this build has no CUDA backend");
}
#endif

}  // namespace

int64_t free_memory(std::string_view device) {
  if (const int64_t index = cuda_index(device); index >= 0) return cuda_free_bytes(index);
  return available_memory();
}

std::vector<std::string> devices() {
  std::vector<std::string> names{"cpu", "cpu-reference"};
  for (int64_t i = 0; i < cuda_devices(); ++i) names.push_back(std::string(kCuda) + std::to_string(i));
  return names;
}

std::shared_ptr<const Backend> make_backend(std::string_view device, int64_t threads) {
  if (device == "auto") {
    // The first card that this build has kernels for.
    for (int64_t i = 0; i < cuda_devices(); ++i) {
      try {
        return make_cuda_backend(i);
      } catch (const Error&) {  // the choice is ours, and is printed
      }
    }
  }
  if (device == "cpu" || device == "auto") return make_cpu_backend(threads);
  if (device == "cpu-reference") return make_reference_backend();
  if (const int64_t index = cuda_index(device); index >= 0) return make_cuda_backend(index);
  throw Error("--device " + std::string(device) + ": unknown device; known are cpu, cpu-reference, cuda:N",
              ErrorKind::kUsage);
}

}  // namespace volley
