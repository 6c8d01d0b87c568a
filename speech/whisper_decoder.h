#pragma once

#include <vector>

#include "core/nn/layers.h"
#include "speech/whisper_config.h"

namespace volley::speech {

// Whisper's decoder: token rows under causal, tree or bit masks; the memory is the encoder's output.
class WhisperDecoder : public StepModel {
 public:
  // Throws Error when a tensor is missing, unexpected or of another shape.
  WhisperDecoder(WhisperConfig config, WeightLoader loader);

  const WhisperConfig& config() const { return config_; }
  const ModelTraits& traits() const override { return traits_; }
  void step(const StepInputs& in, const StepOutputs& out) const override;
  void project_memory(const MemoryInputs& in) const override;

 private:
  struct Layer {
    LayerNorm self_attn_layer_norm;
    SelfAttention self_attn;
    LayerNorm encoder_attn_layer_norm;
    CrossAttention encoder_attn;
    LayerNorm final_layer_norm;
    GeluFeedForward fc;
  };

  Layer load_layer(WeightLoader& loader, const std::string& prefix) const;

  WhisperConfig config_;
  AttentionShape attention_;
  ModelTraits traits_;
  Weight embed_tokens_;     // [vocab, d]
  Weight embed_positions_;  // [max_target_positions, d]
  std::vector<Layer> layers_;
  LayerNorm layer_norm_;
  Linear proj_out_;  // [vocab, d], the same table as embed_tokens
};

}  // namespace volley::speech
