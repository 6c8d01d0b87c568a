#include "core/decode/logits_chain.h"

namespace volley {

SampleRow make_sample_row(const LogitsChain& chain, const OutputPlace& place, LogitsRows rows,
                          PathRange path) {
  SampleRow row{.logits_row = rows.conditional,
                .guidance_row = rows.unconditional,
                .guidance_scale = chain.guidance.scale,
                .temperature = chain.temperature,
                .top_k = chain.top_k,
                .top_p = chain.top_p,
                .filter_order = chain.filter_order,
                .noise_purpose = static_cast<uint32_t>(NoisePurpose::kToken),
                .seed = place.seed,
                .stream = place.stream,
                .position = static_cast<uint32_t>(place.position),
                .repetition_penalty = chain.repetition_penalty,
                .path_begin = path.begin,
                .path_count = path.count};
  switch (chain.guidance.kind) {
    case GuidanceSchedule::Kind::kConstant:
      break;
    case GuidanceSchedule::Kind::kInterval:
      // The reference counts decode steps from 0 behind the prompt's own token and compares with `>`.
      if (chain.guidance.interval >= 0 && place.index - 1 > chain.guidance.interval) row.guidance_row = -1;
      break;
    case GuidanceSchedule::Kind::kLinear:
      row.guidance_scale = 1.0f + (chain.guidance.scale - 1.0f) * static_cast<float>(place.index) /
                                      static_cast<float>(place.total);
      break;
  }
  return row;
}

}  // namespace volley
