// config.json of LLaDA -> LlamaConfig. LLaDA's code is OLMo's with most of its variants left in; the
// published models use one of them, and the others are refused by name. Ref: Nie et al., "Large Language
// Diffusion Models"; GSAI-ML/LLaDA-8B-Base, configuration_llada.py
#include <array>

#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "text/config_ranges.h"
#include "text/llama.h"

namespace volley::text {
namespace {

// A variant that must be as the published models have it; absent or null: `fallback`, the code's default.
struct FixedFlag {
  const char* key;
  bool fallback;
  bool expected;
};
constexpr std::array kFixedFlags{FixedFlag{"alibi", false, false},
                                 FixedFlag{"rope", false, true},
                                 FixedFlag{"rope_full_precision", true, true},
                                 FixedFlag{"attention_layer_norm", false, false},
                                 FixedFlag{"input_emb_norm", false, false},
                                 FixedFlag{"layer_norm_with_affine", true, true},
                                 FixedFlag{"include_bias", false, false},
                                 FixedFlag{"bias_for_layer_norm", false, false},
                                 FixedFlag{"scale_logits", false, false}};
struct FixedWord {
  const char* key;
  const char* fallback;
  const char* expected;
};
constexpr std::array kFixedWords{FixedWord{"block_type", "sequential", "llama"},
                                 FixedWord{"activation_type", "swiglu", "silu"},
                                 FixedWord{"layer_norm_type", "default", "rms"}};

LlamaNames llada_names() {
  return {.embeddings = "model.transformer.wte",
          .layers = "model.transformer.blocks.",
          .attention_norm = "attn_norm",
          .q = "q_proj",
          .k = "k_proj",
          .v = "v_proj",
          .attention_out = "attn_out",
          .mlp_norm = "ff_norm",
          .gate = "ff_proj",
          .up = "up_proj",
          .down = "ff_out",
          .norm = "model.transformer.ln_f",
          .head = "model.transformer.ff_out"};
}

void refuse_variants(const JsonFields& fields, const std::string& path) {
  const auto refuse = [&](const std::string& key, const std::string& found, const std::string& expected) {
    throw Error(path + ": " + key + " " + found + ": only " + expected + " is supported");
  };
  const auto word = [](bool flag) { return std::string(flag ? "true" : "false"); };
  for (const FixedFlag& flag : kFixedFlags) {
    const bool found = fields.boolean_or(flag.key, flag.fallback);
    if (found != flag.expected) refuse(flag.key, word(found), word(flag.expected));
  }
  for (const FixedWord& fixed : kFixedWords) {
    const std::string found = fields.text_or(fixed.key, fixed.fallback);
    if (found != fixed.expected) refuse(fixed.key, quote(found), fixed.expected);
  }
  const int64_t group = fields.integer_or("block_group_size", 1);
  if (group != 1) refuse("block_group_size", std::to_string(group), "1");
}

}  // namespace

LlamaConfig parse_llada_config(const nlohmann::json& config, const std::string& path) {
  const JsonFields fields(config, path);
  refuse_variants(fields, path);
  const int64_t hidden = fields.integer("d_model", kSize), heads = fields.integer("n_heads", {1, 4096});
  const bool one_kv_head = fields.boolean_or("multi_query_attention", false);
  // The embedding may be padded beyond the vocabulary, and the head with it.
  const int64_t vocabulary = fields.integer("vocab_size", kSize);
  const int64_t rows = fields.integer_or("embedding_size", vocabulary, {vocabulary, kMaxSize});
  LlamaConfig parsed{
      .vocab_size = rows,
      .hidden_size = hidden,
      .intermediate_size = fields.integer_or("mlp_hidden_size", 0, kSize),
      .num_hidden_layers = fields.integer("n_layers", {1, 4096}),
      .attention = {.heads = heads,
                    .kv_heads = fields.integer_or("n_kv_heads", one_kv_head ? 1 : heads, {1, heads}),
                    .head_width = hidden / heads},
      .max_position_embeddings = fields.integer("max_sequence_length", kSize),
      .rms_norm_eps = static_cast<float>(fields.number_or("rms_norm_eps", 1e-5, kNormEps)),
      .attention_bias = fields.boolean_or("include_qkv_bias", false),
      .tie_word_embeddings = fields.boolean_or("weight_tying", true),
      .names = llada_names(),
      .kind = ModelKind::kMasked,
      .mask_token = static_cast<int32_t>(fields.integer("mask_token_id", {0, rows - 1}))};
  if (parsed.intermediate_size == 0)
    parsed.intermediate_size = fields.integer_or("mlp_ratio", 4, {1, 256}) * hidden;
  if (hidden % heads != 0 || parsed.attention.head_width % 2 != 0) {
    throw Error(path + ": n_heads " + std::to_string(heads) + " does not divide d_model " +
                std::to_string(hidden) + " into even widths");
  }
  if (heads % parsed.attention.kv_heads != 0) {
    throw Error(path + ": n_kv_heads " + std::to_string(parsed.attention.kv_heads) + " does not divide " +
                std::to_string(heads) + " heads");
  }
  parsed.rope_frequencies = rope_frequencies(
      parsed.attention.head_width, static_cast<float>(fields.number_or("rope_theta", 10000.0, kRopeTheta)));
  return parsed;
}

}  // namespace volley::text
