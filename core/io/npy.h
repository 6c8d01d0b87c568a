#pragma once

#include <cstddef>
#include <span>

#include "core/base/error.h"
#include "core/tensor/tensor.h"

namespace volley {

// The array of a NumPy .npy file, versions 1 to 3: little-endian floats and integers in row-major order. The
// view lies in `file`. Faults for whatever else. Ref: numpy/lib/format.py
Result<HostView> parse_npy(std::span<const std::byte> file);

}  // namespace volley
