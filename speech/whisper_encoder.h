#pragma once

#include <vector>

#include "core/nn/layers.h"
#include "speech/whisper_config.h"

namespace volley::speech {

// Whisper's encoder: log-mel spectrograms to one row for every two frames. Const and shareable.
class WhisperEncoder {
 public:
  // Throws Error when a tensor is missing, unexpected or of another shape.
  WhisperEncoder(WhisperConfig config, WeightLoader loader);

  const WhisperConfig& config() const { return config_; }

  // Rows that `frames` frames become. Throws Error for more than the model has positions for.
  int64_t rows(int64_t frames) const;

  struct EncodeArgs {
    ConstTensor mel;  // [N, n_mels, frames]
    Tensor out;       // [N, rows(frames), d_model]
  };
  // Of N sounds, each as it would be alone. Uses `arena`'s memory for the time of the call.
  void encode(Queue& queue, Arena& arena, const EncodeArgs& args) const;

 private:
  struct Attention {
    Linear q_proj, k_proj, v_proj, out_proj;  // [d, d]
  };
  struct Layer {
    LayerNorm self_attn_layer_norm;
    Attention self_attn;
    LayerNorm final_layer_norm;
    GeluFeedForward fc;
  };

  // out += out_proj(attention(norm(out))), out [N, T, d].
  void attend(Queue& queue, Arena& arena, const Layer& layer, Tensor out) const;

  WhisperConfig config_;
  ConvWeight conv1_;        // n_mels -> d, width 3
  ConvWeight conv2_;        // d -> d, width 3, stride 2
  Weight embed_positions_;  // [max_source_positions, d]
  std::vector<Layer> layers_;
  LayerNorm layer_norm_;
};

}  // namespace volley::speech
