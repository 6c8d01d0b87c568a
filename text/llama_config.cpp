// config.json of transformers -> LlamaConfig.
#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "text/config_ranges.h"
#include "text/llama.h"

namespace volley::text {
namespace {

// transformers 5 keeps rope settings in "rope_parameters"; 4 has "rope_theta" and "rope_scaling".
std::vector<float> frequencies(const JsonFields& fields, int64_t head_width, const std::string& path) {
  const char* key = fields.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!fields.has(key)) {
    return rope_frequencies(head_width,
                            static_cast<float>(fields.number_or("rope_theta", 10000.0, kRopeTheta)));
  }
  const JsonFields rope = fields.object(key);
  const double theta = (rope.has("rope_theta") ? rope : fields).number_or("rope_theta", 10000.0, kRopeTheta);
  const std::string type = rope.text_or("rope_type", rope.text_or("type", "default"));
  const std::vector<float> plain = rope_frequencies(head_width, static_cast<float>(theta));
  if (type == "default") return plain;
  if (type != "llama3")
    throw Error(path + ": rope_type " + quote(type) + ": only default and llama3 are supported");
  const NumberRange factor{1e-3, 1e6};
  const Llama3Scaling scaling{
      .factor = static_cast<float>(rope.number("factor", factor)),
      .low_freq_factor = static_cast<float>(rope.number("low_freq_factor", factor)),
      .high_freq_factor = static_cast<float>(rope.number("high_freq_factor", factor)),
      .original_max_position = static_cast<float>(rope.integer("original_max_position_embeddings", kSize))};
  if (scaling.high_freq_factor <= scaling.low_freq_factor)
    throw Error(path + ": high_freq_factor: expected more than low_freq_factor");
  return llama3_frequencies(plain, scaling);
}

// What Fast-dLLM v2's code takes where config.json names none: "|<MASK>|" of its vocabulary.
constexpr int64_t kFastDllmMask = 151665;

// Qwen 2 that was trained to fill hidden places.
void read_diffusion(const JsonFields& fields, const std::string& path, LlamaConfig& parsed) {
  const IntRange token{0, parsed.vocab_size - 1};
  if (fields.text("model_type") == "Fast_dLLM_Qwen") {
    parsed.kind = ModelKind::kBlockDiffusion;
    const bool is_small = parsed.vocab_size <= kFastDllmMask;
    parsed.mask_token =
        static_cast<int32_t>(is_small ? fields.integer("mask_token_id", token)
                                      : fields.integer_or("mask_token_id", kFastDllmMask, token));
    parsed.mask_block = fields.integer("bd_size", {1, 4096});
  } else if (fields.has("text_mask_token_id")) {
    if (fields.boolean_or("causal_attn", false)) throw Error(path + ": causal_attn is not supported");
    parsed.kind = ModelKind::kSequentialDiffusion;
    parsed.mask_token = static_cast<int32_t>(fields.integer("text_mask_token_id", token));
    parsed.mask_block = fields.integer("block_size", {1, 256});
  }
}

}  // namespace

LlamaConfig parse_llama_config(const nlohmann::json& config, const std::string& path) {
  const JsonFields fields(config, path);
  const std::string type = fields.text("model_type");
  if (type == "llada") return parse_llada_config(config, path);
  const bool is_qwen2 = type == "qwen2" || type == "Fast_dLLM_Qwen";
  if (type != "llama" && !is_qwen2 && type != "qwen3") {
    throw Error(path + ": model_type " + quote(type) +
                ": expected llama, qwen2, qwen3, llada or Fast_dLLM_Qwen");
  }
  if (fields.text_or("hidden_act", "silu") != "silu") {
    throw Error(path + ": hidden_act " + quote(fields.text("hidden_act")) + ": expected silu");
  }
  if (fields.boolean_or("use_sliding_window", false))
    throw Error(path + ": sliding windows are not supported");
  if (fields.boolean_or("mlp_bias", false)) throw Error(path + ": mlp_bias is not supported");
  // q, k and v biases are a property of Qwen 2; Llama's and Qwen 3's `attention_bias` would add one to o as
  // well.
  if (!is_qwen2 && fields.boolean_or("attention_bias", false)) {
    throw Error(path + ": attention_bias is not supported for model_type " + type);
  }
  const int64_t heads = fields.integer("num_attention_heads", {1, 4096});
  const int64_t hidden = fields.integer("hidden_size", kSize);
  LlamaConfig parsed{.vocab_size = fields.integer("vocab_size", kSize),
                     .hidden_size = hidden,
                     .intermediate_size = fields.integer("intermediate_size", kSize),
                     .num_hidden_layers = fields.integer("num_hidden_layers", {1, 4096}),
                     .attention = {.heads = heads,
                                   .kv_heads = fields.integer_or("num_key_value_heads", heads, {1, heads}),
                                   .head_width = fields.integer_or("head_dim", hidden / heads, {2, 4096})},
                     .max_position_embeddings = fields.integer("max_position_embeddings", kSize),
                     .rms_norm_eps = static_cast<float>(fields.number("rms_norm_eps", kNormEps)),
                     .attention_bias = is_qwen2,
                     .qk_norm = type == "qwen3",
                     .tie_word_embeddings = fields.boolean_or("tie_word_embeddings", false)};
  if (heads % parsed.attention.kv_heads != 0) {
    throw Error(path + ": num_key_value_heads " + std::to_string(parsed.attention.kv_heads) +
                " does not divide " + std::to_string(heads) + " heads");
  }
  if (const int64_t width = parsed.attention.head_width; width < 2 || width % 2 != 0) {
    throw Error(path + ": head_dim " + std::to_string(width) + ": expected an even width of heads");
  }
  parsed.rope_frequencies = frequencies(fields, parsed.attention.head_width, path);
  if (is_qwen2) read_diffusion(fields, path, parsed);
  return parsed;
}

}  // namespace volley::text
