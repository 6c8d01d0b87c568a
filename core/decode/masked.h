#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/decode/decoder.h"

namespace volley {

// Numbers in [0, 1) that decide which places a step hides. Tests replay recorded ones.
class MaskUniforms {
 public:
  virtual ~MaskUniforms() = default;
  struct Draw {
    int64_t generation = 0;
    int64_t candidate = 0;
    int64_t step = 0;
    int64_t position = 0;  // in the whole sequence, prompt included
  };
  virtual float at(const Generation& generation, const Draw& draw) = 0;
};

// All candidates of a generation: whole sequences, prompt included.
struct MaskedCandidates {
  std::vector<std::vector<int32_t>> tokens;  // [candidates][length]
  std::vector<float> scores;  // [candidates] mean confidence of the last step, padding left out
  int64_t best = 0;
  bool finished = false;
  int64_t forwards = 0;
  int64_t rows = 0;
};

// The loop of masked models that guess every hidden place at once: in each step of each candidate a random
// share of the places is hidden, and only those are replaced by the likeliest token. The prompt is never
// hidden.
struct MaskedLoop {
  int64_t candidates = 1;
  std::vector<double> mask_ratios;   // of each step
  MaskUniforms* uniforms = nullptr;  // null: the generation's own noise

  std::vector<MaskedCandidates> run(Session& session, std::span<const Generation> generations,
                                    const DecodeControl& control) const;
};

}  // namespace volley
