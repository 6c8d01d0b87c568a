#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/nn/layers.h"

namespace volley::image {

enum class Condition : uint8_t {
  kClass,    // c2i: one class token
  kCaption,  // t2i: rows of a caption's text features
};

// What puts a caption in front of a transformer's codes: fc2(gelu(fc1 x)) of its text features, and features
// that stand for no caption. Ref: LlamaGen's t2i models, CaptionEmbedder.
class CaptionProjection {
 public:
  struct Sizes {
    int64_t rows = 0;         // condition rows
    int64_t caption_dim = 0;  // width of the features
    int64_t dim = 0;          // of the transformer
  };
  CaptionProjection() = default;
  // Reads PREFIXcap_proj.fc1, PREFIXcap_proj.fc2 and PREFIXuncond_embedding.
  CaptionProjection(WeightLoader& loader, const std::string& prefix, const Sizes& sizes);

  // Embedding rows [L, dim] of text features [L, caption_dim]. Uses `arena`'s memory for the time of the
  // call.
  std::vector<float> project(Queue& queue, Arena& arena, std::span<const float> features) const;
  // Features of no caption, [rows, caption_dim], for guidance.
  std::span<const float> uncond_embedding() const { return uncond_embedding_; }

 private:
  Sizes sizes_;
  Linear fc1_;  // [dim, caption_dim]
  Linear fc2_;  // [dim, dim]
  std::vector<float> uncond_embedding_;
};

}  // namespace volley::image
