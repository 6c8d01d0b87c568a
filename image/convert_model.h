#pragma once

#include <stop_token>
#include <string>
#include <vector>

#include "image/image_model.h"

namespace volley::image {

// A file that a conversion wrote.
struct ConvertedFile {
  std::string role;  // "vq", "llamagen", "arpg"
  std::string file;  // its name in the folder
  int64_t bytes = 0;
};

struct ConvertArgs {
  const ImageCard& card;
  const Backend& backend;
  WeightType type = WeightType::kBF16;  // bf16 or q8_0
  std::string folder;                   // where to; its parent must exist
  std::stop_token stop;
};

// Writes a model folder with the card's networks packed for `backend` (core/nn/packed_weights.h), which loads
// by mapping. What else a model folder holds, names and licences, is copied. The folder is there when it is
// whole, and not before. Throws Error naming file and fault; kUsage if something is there already or the
// device reads no packed weights; when asked to stop, which leaves nothing.
std::vector<ConvertedFile> convert_image_model(const ConvertArgs& args);

}  // namespace volley::image
