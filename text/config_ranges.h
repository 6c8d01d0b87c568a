#pragma once

#include <cstdint>

#include "core/io/json.h"

namespace volley::text {

// What numbers of a config.json may be, and sizes of a GGUF file: f32 arithmetic stays finite with them.
// Published models lie far within.
inline constexpr int64_t kMaxSize = int64_t{1} << 24;
inline constexpr IntRange kSize{1, kMaxSize};
inline constexpr NumberRange kRopeTheta{1.0, 1e30};
inline constexpr NumberRange kNormEps{0.0, 1.0};

}  // namespace volley::text
