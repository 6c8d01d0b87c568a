#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor/tensor.h"

namespace volley {

// A tensor of a published checkpoint and how its random values are spread.
struct RandomTensor {
  std::string name;
  Shape shape;
  float mean = 0.0f;
  float deviation = 0.02f;
};

// Published sizes for which random weights can be made: "arpg-l", "arpg-xl", "arpg-xxl", "llamagen-l",
// "vq-16", "whisper-small".
const std::vector<std::string>& published_models();
// Its tensors, named as in the published checkpoint. Throws Error kUsage for other names.
// Ref: hp-l33/ARPG, models/arpg.py; FoundationVision/LlamaGen, gpt.py and vq_model.py.
std::vector<RandomTensor> published_tensors(std::string_view model);

// Writes a checkpoint of these tensors to a safetensors file. Values are functions of tensor name and element
// alone, so that a file made again is the same byte for byte. dtype: kF32 or kBF16.
void write_random_weights(const std::vector<RandomTensor>& tensors, DType dtype, const std::string& path);

}  // namespace volley
