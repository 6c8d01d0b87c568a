#include "tests/support/toy_models.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/noise.h"
#include "text/llama.h"

namespace volley::test {

uint32_t TestRandom::bits() {
  const uint32_t id = count_++;
  return noise_bits({.seed = seed_, .stream = 77}, id);
}

float TestRandom::uniform() {
  return uniform_from_bits(bits());
}

float TestRandom::normal() {
  const float radius = std::sqrt(-2.0f * std::log(uniform()));
  return radius * std::cos(2.0f * std::numbers::pi_v<float> * uniform());
}

int64_t TestRandom::below(int64_t limit) {
  return static_cast<int64_t>((uint64_t{bits()} * static_cast<uint64_t>(limit)) >> 32);
}

void MemoryWeights::add(const std::string& name, Shape shape, TestRandom& random, float spread, float mean) {
  std::vector<float> values(static_cast<size_t>(shape.size()));
  for (float& value : values) value = mean + spread * random.normal();
  add(name, shape, std::move(values));
}

void MemoryWeights::add(const std::string& name, Shape shape, std::vector<float> values) {
  VOLLEY_ASSERT(shape.size() == static_cast<int64_t>(values.size()));
  values_.push_back(std::move(values));
  tensors_.push_back({name, {nullptr, DType::kF32, shape}});
}

void MemoryWeights::disturb(TestRandom& random, float spread) {
  for (std::vector<float>& values : values_) {
    for (float& value : values) value += spread * random.normal();
  }
}

ShapesOnly::ShapesOnly(const std::map<std::string, Shape>& shapes) {
  for (const auto& [name, shape] : shapes) tensors_.push_back({name, {nullptr, DType::kF32, shape}});
}

void MemoryWeights::finish() {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    tensors_[i].view.data = reinterpret_cast<const std::byte*>(values_[i].data());
  }
  std::ranges::sort(tensors_, {}, &NamedTensor::name);
}

std::unique_ptr<StepModel> make_toy_llama(const Backend& backend, uint64_t seed, const ToySizes& sizes,
                                          WeightType type) {
  const int64_t width = sizes.dim / sizes.heads;
  const int64_t feed_forward = 2 * sizes.dim;
  TestRandom random(seed);
  MemoryWeights weights;
  const float spread = sizes.spread;
  weights.add("model.embed_tokens.weight", {sizes.vocab, sizes.dim}, random, 1.0f);
  for (int64_t l = 0; l < sizes.layers; ++l) {
    const std::string prefix = "model.layers." + std::to_string(l) + ".";
    weights.add(prefix + "input_layernorm.weight", {sizes.dim}, random, 0.1f, 1.0f);
    weights.add(prefix + "post_attention_layernorm.weight", {sizes.dim}, random, 0.1f, 1.0f);
    weights.add(prefix + "self_attn.q_proj.weight", {sizes.dim, sizes.dim}, random, spread);
    weights.add(prefix + "self_attn.k_proj.weight", {sizes.kv_heads * width, sizes.dim}, random, spread);
    weights.add(prefix + "self_attn.v_proj.weight", {sizes.kv_heads * width, sizes.dim}, random, spread);
    weights.add(prefix + "self_attn.o_proj.weight", {sizes.dim, sizes.dim}, random, spread);
    weights.add(prefix + "mlp.gate_proj.weight", {feed_forward, sizes.dim}, random, spread);
    weights.add(prefix + "mlp.up_proj.weight", {feed_forward, sizes.dim}, random, spread);
    weights.add(prefix + "mlp.down_proj.weight", {sizes.dim, feed_forward}, random, spread);
  }
  weights.add("model.norm.weight", {sizes.dim}, random, 0.1f, 1.0f);
  weights.add("lm_head.weight", {sizes.vocab, sizes.dim}, random, spread);
  if (sizes.noise > 0.0f) {
    TestRandom noise(seed + 0x5eed);
    weights.disturb(noise, sizes.noise);
  }
  weights.finish();
  return std::make_unique<text::Llama>(
      text::LlamaConfig{.vocab_size = sizes.vocab,
                        .hidden_size = sizes.dim,
                        .intermediate_size = feed_forward,
                        .num_hidden_layers = sizes.layers,
                        .attention = {.heads = sizes.heads, .kv_heads = sizes.kv_heads, .head_width = width},
                        .max_position_embeddings = sizes.max_position,
                        .rope_frequencies = rope_frequencies(width, 10000.0f),
                        .kind = sizes.mask_token < 0 ? text::ModelKind::kCausal : sizes.kind,
                        .mask_token = sizes.mask_token,
                        .mask_block = sizes.mask_block},
      WeightLoader(weights, backend, type));
}

}  // namespace volley::test
