#include "tests/unit/text/toy_text_model.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>
#include <vector>

#include "core/io/byte_reader.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "tests/support/toy_heads.h"
#include "tests/unit/io/gguf_builder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::test {
namespace {

constexpr int64_t kDim = 32, kHeads = 2, kWidth = 16, kLayers = 2, kHidden = 64;

nlohmann::json vocabulary() {
  return read_json_file(VOLLEY_TOKENIZERS "/smollm2.json");
}

std::vector<std::string> tokens_of(const nlohmann::json& json) {
  std::map<int64_t, std::string> by_id;
  for (const auto& [token, id] : json["model"]["vocab"].items()) by_id[id] = token;
  for (const auto& added : json["added_tokens"]) by_id[added["id"]] = added["content"];
  std::vector<std::string> tokens(static_cast<size_t>(by_id.rbegin()->first + 1));
  for (const auto& [id, token] : by_id) tokens[static_cast<size_t>(id)] = token;
  return tokens;
}

MemoryWeights weights_of(const ToyTextOptions& options, int64_t rows) {
  TestRandom random(options.seed);
  MemoryWeights weights;
  constexpr float kSpread = 0.3f;
  weights.add("model.embed_tokens.weight", {rows, kDim}, random, 1.0f);
  for (int64_t l = 0; l < kLayers; ++l) {
    const std::string prefix = "model.layers." + std::to_string(l) + ".";
    const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
      weights.add(prefix + name + ".weight", {out, in}, random, kSpread);
    };
    const auto norm = [&](const std::string& name, int64_t size) {
      weights.add(prefix + name + ".weight", {size}, random, 0.1f, 1.0f);
    };
    norm("input_layernorm", kDim);
    norm("post_attention_layernorm", kDim);
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
      linear(name, kHeads * kWidth, kDim);
    linear("self_attn.o_proj", kDim, kHeads * kWidth);
    norm("self_attn.q_norm", kWidth);
    norm("self_attn.k_norm", kWidth);
    linear("mlp.gate_proj", kHidden, kDim);
    linear("mlp.up_proj", kHidden, kDim);
    linear("mlp.down_proj", kDim, kHidden);
  }
  weights.add("model.norm.weight", {kDim}, random, 0.1f, 1.0f);
  std::vector<float> head(static_cast<size_t>(rows * kDim));
  for (float& value : head) value = kSpread * random.normal();
  constexpr int64_t kSpecialTokens = 3;  // the vocabulary's first ones
  if (options.is_endless) std::fill_n(head.begin(), kSpecialTokens * kDim, 0.0f);
  weights.add("lm_head.weight", {rows, kDim}, std::move(head));
  weights.finish();
  return weights;
}

std::string gguf_name(std::string name) {
  const std::pair<const char*, const char*> parts[] = {
      {"model.embed_tokens", "token_embd"}, {"lm_head", "output"},
      {"model.norm", "output_norm"},        {"model.layers.", "blk."},
      {"input_layernorm", "attn_norm"},     {"post_attention_layernorm", "ffn_norm"},
      {"self_attn.q_norm", "attn_q_norm"},  {"self_attn.k_norm", "attn_k_norm"},
      {"self_attn.q_proj", "attn_q"},       {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},       {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},        {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  for (const auto& [from, to] : parts) {
    const size_t at = name.find(from);
    if (at != std::string::npos) name.replace(at, std::string(from).size(), to);
  }
  return name;
}

}  // namespace

void write_toy_text_folder(const std::string& folder, const ToyTextOptions& options) {
  std::filesystem::create_directories(folder);
  const nlohmann::json json = vocabulary();
  const int64_t rows = std::ssize(tokens_of(json)) + options.spare_ids;
  const nlohmann::json config{{"model_type", "qwen3"},
                              {"vocab_size", rows},
                              {"hidden_size", kDim},
                              {"intermediate_size", kHidden},
                              {"num_hidden_layers", kLayers},
                              {"num_attention_heads", kHeads},
                              {"num_key_value_heads", kHeads},
                              {"head_dim", kWidth},
                              {"max_position_embeddings", options.context},
                              {"rms_norm_eps", 1e-5},
                              {"rope_theta", 10000.0}};
  write_text(folder + "/config.json", config.dump());
  write_text(folder + "/tokenizer.json", json.dump());
  nlohmann::json tokenizer_config{{"eos_token", "<|im_end|>"}, {"bos_token", "<|im_start|>"}};
  if (!options.chat_template.empty()) tokenizer_config["chat_template"] = options.chat_template;
  write_text(folder + "/tokenizer_config.json", tokenizer_config.dump());
  const MemoryWeights weights = weights_of(options, rows);
  write_safetensors(folder + "/model.safetensors", weights.tensors());
}

void write_toy_llada_folder(const std::string& folder, const ToyTextOptions& options) {
  write_toy_text_folder(folder, options);
  const int64_t rows = std::ssize(tokens_of(vocabulary())) + options.spare_ids;
  const nlohmann::json config{
      {"model_type", "llada"}, {"vocab_size", rows},         {"embedding_size", rows},
      {"d_model", kDim},       {"mlp_hidden_size", kHidden}, {"n_layers", kLayers},
      {"n_heads", kHeads},     {"n_kv_heads", kHeads},       {"max_sequence_length", options.context},
      {"rms_norm_eps", 1e-5},  {"rope_theta", 10000.0},      {"rope", true},
      {"block_type", "llama"}, {"activation_type", "silu"},  {"layer_norm_type", "rms"},
      {"weight_tying", false}, {"mask_token_id", rows - 1}};
  write_text(folder + "/config.json", config.dump());
  const std::pair<const char*, const char*> parts[] = {{"model.embed_tokens", "model.transformer.wte"},
                                                       {"lm_head", "model.transformer.ff_out"},
                                                       {"model.norm", "model.transformer.ln_f"},
                                                       {"model.layers", "model.transformer.blocks"},
                                                       {"input_layernorm", "attn_norm"},
                                                       {"post_attention_layernorm", "ff_norm"},
                                                       {"self_attn.o_proj", "attn_out"},
                                                       {"self_attn.", ""},
                                                       {"mlp.gate_proj", "ff_proj"},
                                                       {"mlp.up_proj", "up_proj"},
                                                       {"mlp.down_proj", "ff_out"}};
  const MemoryWeights weights = weights_of(options, rows);
  std::vector<NamedTensor> tensors;
  for (NamedTensor tensor : weights.tensors()) {
    if (tensor.name.find("_norm.") != std::string::npos && tensor.name.find("self_attn") != std::string::npos)
      continue;
    for (const auto& [from, to] : parts) {
      const size_t at = tensor.name.find(from);
      if (at != std::string::npos) tensor.name.replace(at, std::string(from).size(), to);
    }
    tensors.push_back(std::move(tensor));
  }
  write_safetensors(folder + "/model.safetensors", tensors);
}

void write_toy_block_folder(const std::string& folder, text::ModelKind kind, const ToyTextOptions& options) {
  write_toy_text_folder(folder, options);
  nlohmann::json config = read_json_file(folder + "/config.json");
  const int64_t rows = config["vocab_size"];
  if (kind == text::ModelKind::kBlockDiffusion) {
    config.update({{"model_type", "Fast_dLLM_Qwen"}, {"bd_size", 8}, {"mask_token_id", rows - 1}});
  } else {
    config.update({{"model_type", "qwen2"},
                   {"block_size", 4},
                   {"causal_attn", false},
                   {"text_mask_token_id", rows - 1}});
  }
  write_text(folder + "/config.json", config.dump());
  const MemoryWeights weights = weights_of(options, rows);
  std::vector<NamedTensor> tensors;
  for (const NamedTensor& tensor : weights.tensors()) {
    const bool is_head_norm =
        tensor.name.find("q_norm") != std::string::npos || tensor.name.find("k_norm") != std::string::npos;
    if (!is_head_norm) tensors.push_back(tensor);
  }
  TestRandom random(options.seed + 1);
  MemoryWeights biases;
  for (int64_t l = 0; l < kLayers; ++l) {
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
      biases.add("model.layers." + std::to_string(l) + ".self_attn." + name + ".bias", {kHeads * kWidth},
                 random, 0.3f);
    }
  }
  biases.finish();
  for (const NamedTensor& tensor : biases.tensors()) tensors.push_back(tensor);
  write_safetensors(folder + "/model.safetensors", tensors);
}

void write_toy_text_gguf(const std::string& path, const ToyTextOptions& options) {
  const nlohmann::json json = vocabulary();
  const std::vector<std::string> tokens = tokens_of(json);
  std::vector<std::string> types(tokens.size(), gguf::i32(1).substr(4));
  std::map<std::string, uint32_t> ids;
  for (const auto& added : json["added_tokens"]) {
    types[added["id"].get<size_t>()] = gguf::i32(3).substr(4);
    ids[added["content"]] = added["id"].get<uint32_t>();
  }
  std::vector<std::string> merges;
  for (const auto& merge : json["model"]["merges"]) {
    merges.push_back(merge.is_string() ? merge.get<std::string>()
                                       : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  constexpr uint32_t kI32 = 5;
  const auto u32 = [](int64_t value) { return gguf::u32(static_cast<uint32_t>(value)); };
  GgufImage image{.metadata = {{"general.architecture", gguf::text("qwen3")},
                               {"qwen3.block_count", u32(kLayers)},
                               {"qwen3.context_length", u32(options.context)},
                               {"qwen3.embedding_length", u32(kDim)},
                               {"qwen3.feed_forward_length", u32(kHidden)},
                               {"qwen3.attention.head_count", u32(kHeads)},
                               {"qwen3.attention.head_count_kv", u32(kHeads)},
                               {"qwen3.attention.key_length", u32(kWidth)},
                               {"qwen3.attention.value_length", u32(kWidth)},
                               {"qwen3.attention.layer_norm_rms_epsilon", gguf::f32(1e-5f)},
                               {"qwen3.rope.freq_base", gguf::f32(10000.0f)},
                               {"tokenizer.ggml.model", gguf::text("gpt2")},
                               {"tokenizer.ggml.pre", gguf::text("smollm")},
                               {"tokenizer.ggml.tokens", gguf::texts(tokens)},
                               {"tokenizer.ggml.token_type", gguf::array(kI32, types)},
                               {"tokenizer.ggml.merges", gguf::texts(merges)},
                               {"tokenizer.ggml.bos_token_id", u32(ids.at("<|im_start|>"))},
                               {"tokenizer.ggml.eos_token_id", u32(ids.at("<|im_end|>"))}}};
  if (!options.chat_template.empty())
    image.metadata.emplace_back("tokenizer.chat_template", gguf::text(options.chat_template));
  const MemoryWeights weights = weights_of(options, std::ssize(tokens) + options.spare_ids);
  for (const NamedTensor& tensor : weights.tensors()) {
    const auto extents = tensor.view.shape.extents();
    image.tensors.push_back({.name = gguf_name(tensor.name),
                             .shape = {extents.begin(), extents.end()},
                             .bytes = std::string(reinterpret_cast<const char*>(tensor.view.data),
                                                  static_cast<size_t>(tensor.view.bytes()))});
  }
  write_text(path, image.bytes());
}

void write_toy_heads(const std::string& path, text::HeadsFamily family, const ToyTextHeadsOptions& options) {
  const MemoryWeights weights = toy_heads_weights(
      options.seed, {.family = family,
                     .dim = options.dim > 0 ? options.dim : kDim,
                     .vocab = std::ssize(tokens_of(vocabulary())) + ToyTextOptions{}.spare_ids,
                     .spread = 0.2f});
  write_safetensors(path, weights.tensors());
}

}  // namespace volley::test
