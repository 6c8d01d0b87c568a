// config.json of transformers -> WhisperConfig.
#include "speech/whisper_config.h"

#include "core/base/error.h"

namespace volley::speech {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;

void check_heads(int64_t width, int64_t heads, const std::string& path) {
  if (width % heads == 0) return;
  throw Error(path + ": " + std::to_string(heads) + " heads do not divide d_model " + std::to_string(width));
}

}  // namespace

WhisperConfig parse_whisper_config(const nlohmann::json& config, const std::string& path) {
  const JsonFields fields(config, path);
  if (fields.text_or("model_type", "whisper") != "whisper") {
    throw Error(path + ": model_type " + fields.text("model_type") + ": expected whisper");
  }
  if (fields.text_or("activation_function", "gelu") != "gelu") {
    throw Error(path + ": activation_function " + fields.text("activation_function") + ": expected gelu");
  }
  if (fields.boolean_or("scale_embedding", false)) throw Error(path + ": scale_embedding is not supported");
  if (!fields.boolean_or("tie_word_embeddings", true))
    throw Error(path + ": an untied head is not supported");
  const IntRange size{1, kMaxSize}, layers{1, 4096}, heads{1, 4096};
  WhisperConfig parsed{.d_model = fields.integer("d_model", size),
                       .encoder_layers = fields.integer("encoder_layers", layers),
                       .encoder_attention_heads = fields.integer("encoder_attention_heads", heads),
                       .encoder_ffn_dim = fields.integer("encoder_ffn_dim", size),
                       .decoder_layers = fields.integer("decoder_layers", layers),
                       .decoder_attention_heads = fields.integer("decoder_attention_heads", heads),
                       .decoder_ffn_dim = fields.integer("decoder_ffn_dim", size),
                       .num_mel_bins = fields.integer("num_mel_bins", {1, 4096}),
                       .max_source_positions = fields.integer("max_source_positions", size),
                       .max_target_positions = fields.integer("max_target_positions", size),
                       .vocab_size = fields.integer("vocab_size", size)};
  check_heads(parsed.d_model, parsed.encoder_attention_heads, path);
  check_heads(parsed.d_model, parsed.decoder_attention_heads, path);
  return parsed;
}

}  // namespace volley::speech
