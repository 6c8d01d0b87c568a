#include "tests/bench/llada_checkpoint.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/io/atomic_file.h"
#include "tests/bench/random_weights.h"

namespace volley {
namespace {

using nlohmann::json;

constexpr int64_t kShardBytes = int64_t{1} << 30;  // or one tensor

std::vector<RandomTensor> llada_tensors(const LladaSize& size) {
  const std::string prefix = "model.transformer.";
  const int64_t dim = size.dim;
  std::vector<RandomTensor> tensors;
  const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
    tensors.push_back({.name = prefix + name + ".weight", .shape = {out, in}});
  };
  const auto norm = [&](const std::string& name) {
    tensors.push_back({.name = prefix + name + ".weight", .shape = {dim}, .mean = 1.0f, .deviation = 0.1f});
  };
  linear("wte", size.vocab, dim);
  for (int64_t l = 0; l < size.layers; ++l) {
    const std::string block = "blocks." + std::to_string(l) + ".";
    norm(block + "attn_norm");
    for (const char* name : {"q_proj", "k_proj", "v_proj", "attn_out"}) linear(block + name, dim, dim);
    norm(block + "ff_norm");
    for (const char* name : {"ff_proj", "up_proj"}) linear(block + name, size.feed_forward, dim);
    linear(block + "ff_out", dim, size.feed_forward);
  }
  norm("ln_f");
  linear("ff_out", size.vocab, dim);
  return tensors;
}

json llada_config(const LladaSize& size) {
  return {{"model_type", "llada"},
          {"d_model", size.dim},
          {"n_heads", size.heads},
          {"n_kv_heads", size.heads},
          {"n_layers", size.layers},
          {"mlp_hidden_size", size.feed_forward},
          {"vocab_size", size.vocab},
          {"embedding_size", size.vocab},
          {"max_sequence_length", size.positions},
          {"rope", true},
          {"rope_theta", 500000.0},
          {"rms_norm_eps", 1e-5},
          {"block_type", "llama"},
          {"activation_type", "silu"},
          {"layer_norm_type", "rms"},
          {"weight_tying", false},
          {"mask_token_id", size.mask_token}};
}

void write_json(const std::string& path, const json& object) {
  AtomicFile file(path);
  file.write(object.dump(1) + "\n");
  file.commit();
}

}  // namespace

void write_random_llada(const LladaSize& size, DType dtype, const std::string& folder) {
  std::filesystem::create_directories(folder);
  json names = json::object();
  std::vector<RandomTensor> shard;
  int64_t shards = 0, held = 0, total = 0;
  const auto flush = [&] {
    if (shard.empty()) return;
    const std::string name = "model-" + std::to_string(++shards) + ".safetensors";
    write_random_weights(shard, dtype, folder + "/" + name);
    for (const RandomTensor& tensor : shard) names[tensor.name] = name;
    shard.clear();
    held = 0;
  };
  for (RandomTensor& tensor : llada_tensors(size)) {
    const int64_t bytes = dtype_bytes(dtype, tensor.shape.size());
    if (held + bytes > kShardBytes) flush();
    held += bytes;
    total += bytes;
    shard.push_back(std::move(tensor));
  }
  flush();
  write_json(folder + "/model.safetensors.index.json",
             {{"metadata", {{"total_size", total}}}, {"weight_map", names}});
  write_json(folder + "/config.json", llada_config(size));
}

}  // namespace volley
