#include "tests/unit/models/random_models.h"

#include <cmath>

namespace volley::test {

void RandomWeights::linear(const std::string& name, int64_t out, int64_t in) {
  add(name + ".weight", {out, in}, random_, 1.0f / std::sqrt(static_cast<float>(in)));
}

void RandomWeights::vector(const std::string& name, int64_t size) {
  add(name + ".weight", {size}, random_, 0.1f, 1.0f);
}

void RandomWeights::conv(const std::string& name, int64_t out, int64_t in, int64_t kernel) {
  const float spread = 1.0f / std::sqrt(static_cast<float>(in * kernel * kernel));
  add(name + ".weight", {out, in, kernel, kernel}, random_, spread);
  add(name + ".bias", {out}, random_, 0.1f);
}

void RandomWeights::norm(const std::string& name, int64_t channels) {
  vector(name, channels);
  add(name + ".bias", {channels}, random_, 0.1f);
}

RandomWeights llamagen_weights(const image::LlamaGenConfig& config) {
  RandomWeights weights(3);
  const int64_t dim = config.dim, ffn = 2 * dim, width = dim / config.n_head;
  weights.linear("tok_embeddings", config.vocab_size, dim);
  weights.linear("cls_embedding.embedding_table", config.num_classes + 1, dim);
  for (int64_t l = 0; l < config.n_layer; ++l) {
    const std::string prefix = "layers." + std::to_string(l) + ".";
    weights.linear(prefix + "attention.wqkv", dim + 2 * config.n_kv_head * width, dim);
    weights.linear(prefix + "attention.wo", dim, dim);
    weights.linear(prefix + "feed_forward.w1", ffn, dim);
    weights.linear(prefix + "feed_forward.w2", dim, ffn);
    weights.linear(prefix + "feed_forward.w3", ffn, dim);
    weights.vector(prefix + "attention_norm", dim);
    weights.vector(prefix + "ffn_norm", dim);
  }
  weights.vector("norm", dim);
  weights.linear("output", config.vocab_size, dim);
  weights.finish();
  return weights;
}

RandomWeights arpg_weights(const image::ArpgConfig& config) {
  RandomWeights weights(5);
  const int64_t dim = config.dim, ffn = 2 * dim;
  weights.linear("embeddings", config.vocab_size + config.num_classes + 3, dim);
  for (const std::string kind : {"self_dec.", "cross_dec."}) {
    for (int64_t l = 0; l < config.n_layer / 2; ++l) {
      const std::string prefix = "layers." + kind + std::to_string(l) + ".";
      weights.linear(prefix + "attn.to_q", dim, dim);
      if (kind == "self_dec.") {
        weights.linear(prefix + "attn.to_k", dim, dim);
        weights.linear(prefix + "attn.to_v", dim, dim);
      }
      weights.linear(prefix + "attn.proj", dim, dim);
      weights.linear(prefix + "ffn.w1", ffn, dim);
      weights.linear(prefix + "ffn.w2", dim, ffn);
      weights.linear(prefix + "ffn.w3", ffn, dim);
      weights.vector(prefix + "attn_norm", dim);
      weights.vector(prefix + "ffn_norm", dim);
    }
  }
  weights.vector("layers.norm", dim);
  weights.linear("layers.to_k", dim, dim);
  weights.linear("layers.to_v", dim, dim);
  weights.vector("norm", dim);
  weights.linear("head", config.vocab_size, dim);
  weights.finish();
  return weights;
}

namespace {

void add_resnet_block(RandomWeights& weights, const std::string& prefix, int64_t in, int64_t out) {
  weights.norm(prefix + "norm1", in);
  weights.conv(prefix + "conv1", out, in, 3);
  weights.norm(prefix + "norm2", out);
  weights.conv(prefix + "conv2", out, out, 3);
  if (in != out) weights.conv(prefix + "nin_shortcut", out, in, 1);
}

void add_attn_block(RandomWeights& weights, const std::string& prefix, int64_t channels) {
  weights.norm(prefix + "norm", channels);
  for (const char* name : {"q", "k", "v", "proj_out"}) weights.conv(prefix + name, channels, channels, 1);
}

// Encoder or decoder: levels in the order the half runs them.
void add_coder(RandomWeights& weights, const std::string& half, std::vector<int64_t> channels,
               int64_t blocks) {
  const bool is_encoder = half == "encoder.";
  const size_t deepest = is_encoder ? channels.size() - 2 : 0;
  for (size_t i = 0; i + 1 < channels.size(); ++i) {
    const std::string prefix = half + "conv_blocks." + std::to_string(i) + ".";
    for (int64_t j = 0; j < blocks; ++j) {
      add_resnet_block(weights, prefix + "res." + std::to_string(j) + ".",
                       j == 0 ? channels[i] : channels[i + 1], channels[i + 1]);
      if (i == deepest) add_attn_block(weights, prefix + "attn." + std::to_string(j) + ".", channels[i + 1]);
    }
    if (i + 2 < channels.size()) {
      weights.conv(prefix + (is_encoder ? "downsample.conv" : "upsample.conv"), channels[i + 1],
                   channels[i + 1], 3);
    }
  }
  const int64_t mid = is_encoder ? channels.back() : channels.front();
  add_resnet_block(weights, half + "mid.0.", mid, mid);
  add_attn_block(weights, half + "mid.1.", mid);
  add_resnet_block(weights, half + "mid.2.", mid, mid);
  weights.norm(half + "norm_out", channels.back());
}

}  // namespace

RandomWeights vq_weights(const image::VqConfig& config, uint64_t seed) {
  RandomWeights weights(seed);
  std::vector<int64_t> down{config.ch}, up{config.ch * config.ch_mult.back()};
  for (int64_t mult : config.ch_mult) down.push_back(config.ch * mult);
  for (size_t i = config.ch_mult.size(); i-- > 0;) up.push_back(config.ch * config.ch_mult[i]);
  weights.linear("quantize.embedding", config.codebook_size, config.codebook_embed_dim);
  weights.conv("quant_conv", config.codebook_embed_dim, config.z_channels, 1);
  weights.conv("post_quant_conv", config.z_channels, config.codebook_embed_dim, 1);
  weights.conv("encoder.conv_in", config.ch, 3, 3);
  weights.conv("encoder.conv_out", config.z_channels, down.back(), 3);
  weights.conv("decoder.conv_in", up.front(), config.z_channels, 3);
  weights.conv("decoder.conv_out", 3, up.back(), 3);
  add_coder(weights, "encoder.", down, config.num_res_blocks);
  add_coder(weights, "decoder.", up, config.num_res_blocks + 1);
  weights.finish();
  return weights;
}

RandomWeights diff_llama_weights(const speech::DiffLlamaConfig& config) {
  RandomWeights weights(11);
  const int64_t dim = config.n_embd, width = dim / config.n_head;
  weights.linear("transformer.wte", config.padded_vocab_size + 1, dim);
  for (int64_t l = 0; l < config.n_layer; ++l) {
    const std::string prefix = "transformer.h." + std::to_string(l) + ".";
    weights.linear(prefix + "attn.attn", (config.n_head + 2 * config.n_query_groups) * width, dim);
    weights.linear(prefix + "attn.proj", dim, dim);
    weights.linear(prefix + "mlp.swiglu.w1", config.intermediate_size, dim);
    weights.linear(prefix + "mlp.swiglu.w2", config.intermediate_size, dim);
    weights.linear(prefix + "mlp.swiglu.w3", dim, config.intermediate_size);
    weights.vector(prefix + "norm_1", dim);
    weights.vector(prefix + "norm_2", dim);
    if (config.memory_width == 0) continue;
    weights.linear(prefix + "cross_attn.q_proj", dim, dim);
    weights.linear(prefix + "cross_attn.kv_proj", 2 * dim, config.memory_width);
    weights.linear(prefix + "cross_attn.proj", dim, dim);
    weights.vector(prefix + "norm_cross", dim);
  }
  weights.vector("transformer.ln_f", dim);
  weights.linear("lm_head", config.padded_vocab_size, dim);
  weights.finish();
  return weights;
}

}  // namespace volley::test
