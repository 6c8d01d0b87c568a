#pragma once

#include <cstdint>

#include "core/backend/operations.h"
#include "core/base/noise.h"

namespace volley {

// Strength of classifier-free guidance, as a function of the output alone: it must not depend on the method.
struct GuidanceSchedule {
  enum class Kind : uint8_t {
    kConstant,
    kInterval,  // off once more than `interval` tokens followed the first (LlamaGen's cfg_interval)
    kLinear,    // 1 + (scale - 1) * done / total (ARPG)
  };
  Kind kind = Kind::kConstant;
  float scale = 1.0f;
  int64_t interval = -1;
};

// How logits become a token: penalty, guidance, temperature, filters, Gumbel argmax. The same for every
// method.
struct LogitsChain {
  GuidanceSchedule guidance;
  float temperature = 1.0f;  // 0: greedy
  int32_t top_k = 0;
  float top_p = 1.0f;
  FilterOrder filter_order = FilterOrder::kTopKTopP;
  float repetition_penalty = 1.0f;
};

// Which output token is being chosen.
struct OutputPlace {
  uint64_t seed = 0;
  uint32_t stream = 0;
  int64_t position = 0;  // index in the output: names the noise
  int64_t index = 0;     // tokens before it, as the guidance schedule counts them
  int64_t total = 0;     // of the output
};

struct LogitsRows {
  int32_t conditional = 0;
  int32_t unconditional = -1;  // negative: no guidance
};

// Tokens the row has seen, as a range of SampleArgs::path. Only the penalty reads it.
struct PathRange {
  int32_t begin = 0;
  int32_t count = 0;
};

SampleRow make_sample_row(const LogitsChain& chain, const OutputPlace& place, LogitsRows rows,
                          PathRange path = {});

}  // namespace volley
