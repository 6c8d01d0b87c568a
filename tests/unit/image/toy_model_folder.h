#pragma once

#include <cstdint>
#include <string>

namespace volley::test {

// Writes a model folder of the form that volley image runs, with random weights: 16x16 pixels of 8x8 codes
// out of 32, classes food-fruit, food-drink, animal-bird and "sky & weather", names of things they hold.
struct ToyFolderOptions {
  uint64_t seed = 1;
  bool has_llamagen = true;
  bool has_arpg = true;
  // With a text encoder, prompts of up to three words are drawn as they are.
  bool has_text_encoder = false;
};
void write_toy_model_folder(const std::string& folder, const ToyFolderOptions& options = {});

// A c2i checkpoint of so many classes as its authors name it, for the same tokenizer.
void write_toy_class_checkpoint(const std::string& path, int64_t classes);

// A t2i checkpoint as its authors name it, for the same tokenizer: up to 5 caption rows of 6 features.
void write_toy_caption_checkpoint(const std::string& path, uint64_t seed = 1);
inline constexpr int64_t kToyCaptionRows = 5, kToyCaptionWidth = 6;

inline constexpr int64_t kToyHeads = 2;
inline constexpr int64_t kToyTokens = 64;
inline constexpr int64_t kToySide = 16;  // pixels

}  // namespace volley::test
