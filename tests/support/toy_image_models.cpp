#include "tests/support/toy_image_models.h"

namespace volley::test {

std::unique_ptr<image::Arpg> make_toy_arpg(const Backend& backend, uint64_t seed, int64_t side) {
  constexpr int64_t kDim = 16, kVocab = 16, kClasses = 3, kFfn = 32;
  constexpr float kSpread = 0.5f;
  TestRandom random(seed);
  MemoryWeights weights;
  const auto norm = [&](const std::string& name) {
    weights.add(name + ".weight", {kDim}, random, 0.1f, 1.0f);
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
    weights.add(name + ".weight", {out, in}, random, kSpread);
  };
  weights.add("embeddings.weight", {kVocab + kClasses + 3, kDim}, random, 1.0f);
  for (const std::string part : {"self_dec", "cross_dec"}) {
    const std::string prefix = "layers." + part + ".0.";
    norm(prefix + "attn_norm");
    norm(prefix + "ffn_norm");
    linear(prefix + "attn.to_q", kDim, kDim);
    linear(prefix + "attn.proj", kDim, kDim);
    if (part == "self_dec") {
      linear(prefix + "attn.to_k", kDim, kDim);
      linear(prefix + "attn.to_v", kDim, kDim);
    }
    linear(prefix + "ffn.w1", kFfn, kDim);
    linear(prefix + "ffn.w3", kFfn, kDim);
    linear(prefix + "ffn.w2", kDim, kFfn);
  }
  norm("layers.norm");
  linear("layers.to_k", kDim, kDim);
  linear("layers.to_v", kDim, kDim);
  norm("norm");
  linear("head", kVocab, kDim);
  weights.finish();
  return std::make_unique<image::Arpg>(image::ArpgConfig{.dim = kDim,
                                                         .n_layer = 2,
                                                         .n_head = 2,
                                                         .vocab_size = kVocab,
                                                         .num_classes = kClasses,
                                                         .block_size = side * side,
                                                         .grid_side = side},
                                       WeightLoader(weights, backend, WeightType::kF32));
}

std::unique_ptr<speech::DiffLlama> make_toy_masked(const Backend& backend, uint64_t seed,
                                                   int64_t memory_width) {
  constexpr int64_t kDim = 16, kVocab = 16, kFfn = 32;
  constexpr float kSpread = 0.5f;
  TestRandom random(seed);
  MemoryWeights weights;
  weights.add("transformer.wte.weight", {kVocab + 1, kDim}, random, 1.0f);
  const std::string prefix = "transformer.h.0.";
  for (const std::string name : {"norm_1", "norm_2"})
    weights.add(prefix + name + ".weight", {kDim}, random, 0.1f, 1.0f);
  weights.add(prefix + "attn.attn.weight", {3 * kDim, kDim}, random, kSpread);
  weights.add(prefix + "attn.proj.weight", {kDim, kDim}, random, kSpread);
  if (memory_width > 0) {
    weights.add(prefix + "norm_cross.weight", {kDim}, random, 0.1f, 1.0f);
    weights.add(prefix + "cross_attn.q_proj.weight", {kDim, kDim}, random, kSpread);
    weights.add(prefix + "cross_attn.kv_proj.weight", {2 * kDim, memory_width}, random, kSpread);
    weights.add(prefix + "cross_attn.proj.weight", {kDim, kDim}, random, kSpread);
  }
  weights.add(prefix + "mlp.swiglu.w1.weight", {kFfn, kDim}, random, kSpread);
  weights.add(prefix + "mlp.swiglu.w2.weight", {kFfn, kDim}, random, kSpread);
  weights.add(prefix + "mlp.swiglu.w3.weight", {kDim, kFfn}, random, kSpread);
  weights.add("transformer.ln_f.weight", {kDim}, random, 0.1f, 1.0f);
  weights.add("lm_head.weight", {kVocab, kDim}, random, kSpread);
  weights.finish();
  return std::make_unique<speech::DiffLlama>(speech::DiffLlamaConfig{.n_layer = 1,
                                                                     .n_embd = kDim,
                                                                     .n_head = 2,
                                                                     .n_query_groups = 2,
                                                                     .intermediate_size = kFfn,
                                                                     .padded_vocab_size = kVocab,
                                                                     .mask_token_id = kVocab,
                                                                     .block_size = 64,
                                                                     .memory_width = memory_width},
                                             WeightLoader(weights, backend, WeightType::kF32));
}

}  // namespace volley::test
