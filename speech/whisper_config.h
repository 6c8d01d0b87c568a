#pragma once

#include <string>

#include "core/io/json.h"

namespace volley::speech {

// Sizes of a Whisper model, as config.json of transformers states them.
struct WhisperConfig {
  int64_t d_model = 0;
  int64_t encoder_layers = 0;
  int64_t encoder_attention_heads = 0;
  int64_t encoder_ffn_dim = 0;
  int64_t decoder_layers = 0;
  int64_t decoder_attention_heads = 0;
  int64_t decoder_ffn_dim = 0;
  int64_t num_mel_bins = 0;
  int64_t max_source_positions = 0;  // encoder rows: half the frames of a mel
  int64_t max_target_positions = 0;  // tokens of the decoder
  int64_t vocab_size = 0;
  float layer_norm_eps = 1e-5f;
};

// Reads config.json's object; `path` is for messages. Throws Error on missing or impossible values and on
// variants that are not supported.
WhisperConfig parse_whisper_config(const nlohmann::json& config, const std::string& path);

}  // namespace volley::speech
