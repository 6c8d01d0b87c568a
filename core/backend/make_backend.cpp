#include <string>

#include "core/backend/backend.h"
#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/reference/reference_backend.h"

namespace volley {

std::shared_ptr<const Backend> make_backend(std::string_view device, int64_t threads) {
  if (device == "cpu" || device == "auto") return make_cpu_backend(threads);
  if (device == "cpu-reference") return make_reference_backend();
  throw Error("--device " + std::string(device) + ": unknown device; known are cpu, cpu-reference",
              ErrorKind::kUsage);
}

}  // namespace volley
