#pragma once

#include <cstdint>

#include "core/decode/options.h"
#include "core/decode/unmasking.h"

namespace volley {

// What the options of method diffusion say.
struct DiffusionSettings {
  enum class Cache : uint8_t { kOff, kPrefix, kDual };

  int64_t steps = 0;  // of the whole output; 0: as many as it has tokens
  int64_t block_length = 0;
  UnmaskRule rule;
  Cache cache = Cache::kOff;
  bool always_second = false;  // see the option second_forward
};

// Throws Error kUsage for a value that is none, and for options that contradict each other.
DiffusionSettings read_diffusion_settings(const OptionReader& options);

}  // namespace volley
