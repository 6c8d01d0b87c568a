#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace volley::image {

// What a text encoder made of a caption.
struct TextFeatures {
  std::string file;
  std::string sha256;         // of the file
  std::vector<float> values;  // [rows, width]; rows of padding left out
  int64_t rows = 0;
};

// Reads a .npy file of [T, width] or [1, T, width] floats, or a safetensors file with tensor "features" of
// that shape and, if some rows are padding, "mask" ([T] or [1, T], 0 for padding, on whichever side). Throws
// Error naming file and fault, with what the model takes: at most `max_rows` rows of `width`.
struct TextFeatureShape {
  int64_t max_rows = 0;
  int64_t width = 0;
};
TextFeatures read_text_features(const std::string& path, const TextFeatureShape& shape);

}  // namespace volley::image
