#pragma once

#include <string>

#include "core/backend/operations.h"
#include "core/base/error.h"

namespace volley {

// The storage of weights that --dtype names: f32, bf16 or q8_0. Throws Error kUsage.
inline WeightType storage_of(const std::string& dtype) {
  if (dtype == "f32") return WeightType::kF32;
  if (dtype == "bf16") return WeightType::kBF16;
  if (dtype == "q8_0") return WeightType::kQ8_0;
  throw Error("--dtype " + dtype + ": expected f32, bf16 or q8_0", ErrorKind::kUsage);
}

}  // namespace volley
