#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/json.h"
#include "core/nn/layers.h"

namespace volley::image {

struct TextEncoderConfig {
  int64_t dim = 0;
  int64_t n_layer = 0;
  int64_t n_head = 0;
  int64_t ffn_dim = 0;
  int64_t num_classes = 0;
  int64_t buckets = 0;    // rows of the table of words and their parts
  int64_t max_words = 0;  // words of a prompt that are read
  float norm_eps = 1e-5f;
};

// Reads config.json's object; `path` is for messages. Throws Error on missing or impossible values.
TextEncoderConfig parse_text_encoder_config(const nlohmann::json& config, const std::string& path);

// A class and the words of a prompt to one condition vector. Const and shareable.
class TextEncoder {
 public:
  // Throws Error when a tensor is missing, unexpected or of another shape.
  TextEncoder(TextEncoderConfig config, WeightLoader loader);

  const TextEncoderConfig& config() const { return config_; }

  struct Asked {
    std::optional<int64_t> class_id;  // none: whatever the words say
    std::string_view prompt;          // may be empty
  };
  // [dim]. Words beyond config().max_words are not read. Uses `arena`'s memory for the time of the call.
  std::vector<float> encode(Queue& queue, Arena& arena, const Asked& asked) const;

 private:
  struct Layer {
    RmsNorm attention_norm;
    Linear q, k, v, out;  // [dim, dim]
    RmsNorm ffn_norm;
    SwiGlu feed_forward;
  };

  Layer load_layer(WeightLoader& loader, const std::string& prefix) const;
  std::vector<float> input_rows(const Asked& asked) const;
  void attend(Queue& queue, Arena& arena, const Layer& layer, ConstTensor normed, Tensor x) const;

  TextEncoderConfig config_;
  // On the host: a prompt reads a few rows of each.
  std::vector<float> class_embedding_;     // [num_classes + 1, dim]; last: no class
  std::vector<float> word_embedding_;      // [buckets, dim]
  std::vector<float> position_embedding_;  // [1 + max_words, dim]
  std::vector<Layer> layers_;
  RmsNorm norm_;
};

}  // namespace volley::image
