#pragma once

#include <string>
#include <vector>

#include "image/image_card.h"

namespace volley::image {

// A model as a person names it.
struct ImageFiles {
  // A model folder (config.json with "format"), a checkpoint, a sharded checkpoint's folder, or a folder with
  // one transformer and its tokenizer.
  std::string path;
  std::string vq;                       // the tokenizer's checkpoint; empty: looked for
  int64_t image_size = 0;               // pixels of a side; 0: by the file's name, else the size's default
  std::vector<std::string> vq_folders;  // where else a tokenizer may be, searched in this order
};

// The card of a model folder, or that of published checkpoints: kind and sizes from names and shapes of
// tensors, sampling as the authors have it, classes by their numbers, with the names of ImageNet's where
// there are 1000. Reads no values. Throws Error naming file and fault; kModelMissing, with the command that
// gets it, if the tokenizer is not found.
ImageCard open_image_card(const ImageFiles& files);

}  // namespace volley::image
