#include "tests/unit/text/gguf_case.h"

#include <map>
#include <numeric>
#include <span>

#include "core/decode/session.h"
#include "core/io/byte_reader.h"
#include "core/io/convert.h"
#include "core/io/open_weights.h"
#include "core/nn/rope_table.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {

void HeldWeights::add(std::string name, DType dtype, Shape shape, std::string bytes) {
  bytes_.push_back(std::make_unique<std::string>(std::move(bytes)));
  tensors_.push_back({std::move(name), {as_bytes(*bytes_.back()).data(), dtype, shape}});
}

void HeldWeights::finish() {
  sort_by_name(tensors_);
}

TextCase::TextCase(const std::string& name)
    : folder(VOLLEY_GOLDENS "/" + name),
      json(read_json_file(folder + "/config.json")),
      config(text::parse_llama_config(json, folder)),
      weights(open_weights(folder)) {}

TextCase::TextCase(nlohmann::json own, std::unique_ptr<WeightSource> own_weights)
    : json(std::move(own)),
      config(text::parse_llama_config(json, own_weights->path())),
      weights(std::move(own_weights)) {}

Encoded encode_f32(const std::vector<float>& values) {
  return {kGgufF32, std::string(as_text(std::as_bytes(std::span(values))))};
}

Encoded encode_q8_0(const std::vector<float>& values) {
  return {kGgufQ8_0, q8_0_blocks(values)};
}

Encoded encode_q4_1(const std::vector<float>& values) {
  return {kGgufQ4_1, q4_1_blocks(values)};
}

namespace {

std::string gguf_name(std::string name) {
  const std::pair<const char*, const char*> parts[] = {{"model.embed_tokens", "token_embd"},
                                                       {"lm_head", "output"},
                                                       {"model.norm", "output_norm"},
                                                       {"model.layers.", "blk."},
                                                       {"input_layernorm", "attn_norm"},
                                                       {"post_attention_layernorm", "ffn_norm"},
                                                       {"self_attn.q_norm", "attn_q_norm"},
                                                       {"self_attn.k_norm", "attn_k_norm"},
                                                       {"self_attn.q_proj", "attn_q"},
                                                       {"self_attn.k_proj", "attn_k"},
                                                       {"self_attn.v_proj", "attn_v"},
                                                       {"self_attn.o_proj", "attn_output"},
                                                       {"mlp.gate_proj", "ffn_gate"},
                                                       {"mlp.up_proj", "ffn_up"},
                                                       {"mlp.down_proj", "ffn_down"},
                                                       // LLaDA's
                                                       {"model.transformer.wte", "token_embd"},
                                                       {"model.transformer.ff_out", "output"},
                                                       {"model.transformer.ln_f", "output_norm"},
                                                       {"model.transformer.blocks.", "blk."},
                                                       {".ff_norm", ".ffn_norm"},
                                                       {".q_proj", ".attn_q"},
                                                       {".k_proj", ".attn_k"},
                                                       {".v_proj", ".attn_v"},
                                                       {".attn_out.", ".attn_output."},
                                                       {".ff_proj", ".ffn_gate"},
                                                       {".up_proj", ".ffn_up"},
                                                       {".ff_out", ".ffn_down"}};
  for (const auto& [from, to] : parts) {
    const size_t at = name.find(from);
    if (at != std::string::npos) name.replace(at, std::string(from).size(), to);
  }
  return name;
}

// [heads, 2, width / 2, columns] -> [heads, width / 2, 2, columns]
std::vector<float> interleaved(const std::vector<float>& rows, int64_t heads, int64_t columns) {
  const int64_t half = static_cast<int64_t>(rows.size()) / (heads * 2 * columns);
  std::vector<float> turned;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t i = 0; i < half; ++i) {
      for (int64_t side = 0; side < 2; ++side) {
        const auto row = rows.begin() + ((head * 2 + side) * half + i) * columns;
        turned.insert(turned.end(), row, row + columns);
      }
    }
  }
  return turned;
}

std::vector<std::pair<std::string, std::string>> metadata_of(const TextCase& from) {
  const nlohmann::json& json = from.json;
  const std::string architecture = json["model_type"];
  const auto u32 = [](int64_t value) { return gguf::u32(static_cast<uint32_t>(value)); };
  const auto key = [&](const char* name) { return architecture + "." + name; };
  const bool is_llada = architecture == "llada";
  std::vector<std::pair<std::string, std::string>> metadata{
      {"general.architecture", gguf::text(architecture)},
      {key("block_count"), u32(from.config.num_hidden_layers)},
      {key("context_length"), u32(from.config.max_position_embeddings)},
      {key("embedding_length"), u32(from.config.hidden_size)},
      {key("feed_forward_length"), u32(from.config.intermediate_size)},
      {key("attention.head_count"), u32(from.config.attention.heads)},
      {key("attention.head_count_kv"), u32(from.config.attention.kv_heads)},
      {key("attention.key_length"), u32(from.config.attention.head_width)},
      {key("attention.value_length"), u32(from.config.attention.head_width)},
      {key("rope.dimension_count"), u32(from.config.attention.head_width)},
      {key("attention.layer_norm_rms_epsilon"), gguf::f32(from.config.rms_norm_eps)},
      {key("rope.freq_base"),
       gguf::f32(is_llada ? json["rope_theta"] : json["rope_parameters"]["rope_theta"])},
      {"tokenizer.ggml.tokens", gguf::texts({"a", "b"})}};
  if (is_llada) metadata.emplace_back("tokenizer.ggml.mask_token_id", u32(from.config.mask_token));
  return metadata;
}

}  // namespace

GgufImage gguf_of(const TextCase& from, const Encode& encode_matrix) {
  GgufImage image{.metadata = metadata_of(from)};
  const auto& [heads, kv_heads, width] = from.config.attention;
  for (const NamedTensor& tensor : from.weights->tensors()) {
    std::vector<float> values = to_f32(tensor.view);
    const bool is_matrix = tensor.view.shape.rank() == 2;
    if (is_matrix && (from.json["model_type"] == "llama" || from.json["model_type"] == "llada")) {
      const bool is_q = tensor.name.ends_with("q_proj.weight"), is_k = tensor.name.ends_with("k_proj.weight");
      if (is_q || is_k) values = interleaved(values, is_q ? heads : kv_heads, tensor.view.shape[1]);
    }
    const Encoded encoded = is_matrix ? encode_matrix(values) : encode_f32(values);
    const auto extents = tensor.view.shape.extents();
    image.tensors.push_back({.name = gguf_name(tensor.name),
                             .type = encoded.type,
                             .shape = {extents.begin(), extents.end()},
                             .bytes = encoded.bytes});
  }
  if (from.json.contains("rope_parameters") && from.json["rope_parameters"]["rope_type"] == "llama3") {
    std::vector<float> divisors = rope_frequencies(width, from.json["rope_parameters"]["rope_theta"]);
    for (size_t i = 0; i < divisors.size(); ++i) divisors[i] /= from.config.rope_frequencies[i];
    image.tensors.push_back(
        {.name = "rope_freqs.weight", .shape = {divisors.size()}, .bytes = encode_f32(divisors).bytes});
  }
  return image;
}

std::vector<float> all_logits(const text::LlamaConfig& config, const WeightSource& weights,
                              const std::shared_ptr<const Backend>& backend, WeightStorage storage) {
  const text::Llama model(config, WeightLoader(weights, *backend, storage));
  constexpr int64_t kPrompt = 20, kBehind = 3;
  Session session(model, backend, {.entries = kPrompt + kBehind});
  const SequenceId sequence = session.cache().create();
  std::vector<float> logits;
  const auto step = [&](Phase phase, int64_t begin, int64_t count) {
    SequenceStep rows{.sequence = sequence, .phase = phase};
    rows.visibility.kind = model.traits().masks.front();
    for (int64_t i = begin; i < begin + count; ++i) {
      rows.wanted.logits.push_back(static_cast<int32_t>(i - begin));
      rows.rows.push_back(
          {.token = static_cast<int32_t>((i * 37 + 11) % config.vocab_size), .position = model.position(i)});
    }
    session.step({&rows, 1});
    for (int64_t w = 0; w < count; ++w) {
      const std::vector<float> row = session.logits_on_host(session.logits_row(0, w));
      logits.insert(logits.end(), row.begin(), row.end());
    }
    session.cache().commit_prefix(sequence, count);
  };
  step(Phase::kPrompt, 0, kPrompt);
  for (int64_t i = kPrompt; i < kPrompt + kBehind; ++i) step(Phase::kDecode, i, 1);
  return logits;
}

}  // namespace volley::test
