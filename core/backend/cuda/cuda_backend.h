#pragma once

#include <memory>

#include "core/backend/backend.h"

namespace volley {

// `cuda:N`: the N-th device of the CUDA runtime. Throws Error kFailed when there is none, saying how many
// there are.
std::shared_ptr<const Backend> make_cuda_backend(int64_t device);

// Devices of the CUDA runtime; 0 without a driver.
int64_t cuda_devices();
// Memory that such a device has left; 0: not known.
int64_t cuda_free_bytes(int64_t device);

}  // namespace volley
