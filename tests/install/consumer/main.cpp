// Writes a tiny checkpoint, opens it, and generates from it one by one and by Jacobi iteration.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "core/base/noise.h"
#include "core/decode/decoder.h"
#include "core/io/open_weights.h"
#include "core/io/safetensors.h"
#include "text/llama.h"

namespace {

constexpr int64_t kVocab = 32, kDim = 16, kHidden = 24;

void write_checkpoint(const std::string& path) {
  const std::vector<std::pair<std::string, volley::Shape>> shapes{
      {"lm_head.weight", {kVocab, kDim}},
      {"model.embed_tokens.weight", {kVocab, kDim}},
      {"model.layers.0.input_layernorm.weight", {kDim}},
      {"model.layers.0.mlp.down_proj.weight", {kDim, kHidden}},
      {"model.layers.0.mlp.gate_proj.weight", {kHidden, kDim}},
      {"model.layers.0.mlp.up_proj.weight", {kHidden, kDim}},
      {"model.layers.0.post_attention_layernorm.weight", {kDim}},
      {"model.layers.0.self_attn.k_proj.weight", {kDim, kDim}},
      {"model.layers.0.self_attn.o_proj.weight", {kDim, kDim}},
      {"model.layers.0.self_attn.q_proj.weight", {kDim, kDim}},
      {"model.layers.0.self_attn.v_proj.weight", {kDim, kDim}},
      {"model.norm.weight", {kDim}}};
  std::vector<std::vector<float>> values;
  std::vector<volley::NamedTensor> tensors;
  for (const auto& [name, shape] : shapes) {
    auto& tensor = values.emplace_back(static_cast<size_t>(shape.size()));
    const auto stream = static_cast<uint32_t>(values.size());
    for (uint32_t i = 0; i < tensor.size(); ++i) tensor[i] = volley::uniform({.stream = stream}, i) - 0.5f;
    tensors.push_back(
        {name, {reinterpret_cast<const std::byte*>(tensor.data()), volley::DType::kF32, shape}});
  }
  volley::write_safetensors(path, tensors);
}

std::vector<int32_t> generate(const volley::StepModel& model, std::shared_ptr<const volley::Backend> backend,
                              const std::string& method) {
  const std::vector<int32_t> prompt{3, 1, 4, 1, 5};
  const volley::Generation generation{.prompt = volley::token_prompt(model, prompt),
                                      .chain = {.temperature = 1.0f},
                                      .seed = 7,
                                      .max_tokens = 40};
  const auto decoder = volley::make_decoder(volley::parse_decoder_spec(method));
  volley::Session session(model, backend, {.sequences = 2, .entries = decoder->entries(generation)});
  return decoder->decode(session, std::vector{generation}, {}).at(0).tokens;
}

}  // namespace

int main() {
  try {
    write_checkpoint("toy.safetensors");
    const auto weights = volley::open_weights("toy.safetensors");
    const auto backend = volley::make_backend("cpu-reference", 2);
    const volley::text::LlamaConfig config{.vocab_size = kVocab,
                                           .hidden_size = kDim,
                                           .intermediate_size = kHidden,
                                           .num_hidden_layers = 1,
                                           .attention = {.heads = 2, .kv_heads = 2, .head_width = kDim / 2},
                                           .max_position_embeddings = 256,
                                           .rope_frequencies = volley::rope_frequencies(kDim / 2, 10000.0f)};
    const volley::text::Llama model(config,
                                    volley::WeightLoader(*weights, *backend, volley::WeightType::kF32));
    const auto sequential = generate(model, backend, "sequential");
    const auto jacobi = generate(model, backend, "jacobi");
    for (const int32_t token : sequential) std::printf("%d ", token);
    std::printf("\n");
    if (sequential.size() != 40 || sequential != jacobi) {
      std::printf("the methods differ\n");
      return 1;
    }
    return 0;
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
