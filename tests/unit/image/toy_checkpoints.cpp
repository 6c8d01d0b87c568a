#include "tests/unit/image/toy_checkpoints.h"

#include <fstream>
#include <map>
#include <vector>

#include "core/io/byte_reader.h"
#include "core/io/safetensors.h"
#include "tests/unit/io/file_builders.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::test {
namespace {

std::string bytes_of(const HostView& view) {
  return std::string(as_text({view.data, static_cast<size_t>(view.bytes())}));
}

std::string pickled(const HostView& view, const std::string& storage) {
  std::vector<int64_t> extents, strides(static_cast<size_t>(view.shape.rank()), 1);
  for (int64_t i = 0; i < view.shape.rank(); ++i) extents.push_back(view.shape[i]);
  for (int64_t i = view.shape.rank() - 1; i-- > 0;) {
    strides[static_cast<size_t>(i)] = strides[static_cast<size_t>(i + 1)] * view.shape[i + 1];
  }
  return torch_tensor(
      {.storage = storage, .elements = view.shape.size(), .shape = extents, .strides = strides});
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

}  // namespace

void write_torch_checkpoint(const std::string& path, const WeightSource& weights, const TorchForm& form) {
  std::vector<std::pair<std::string, std::string>> storages, state, average;
  for (const NamedTensor& tensor : weights.tensors()) {
    const std::string key = std::to_string(storages.size());
    state.emplace_back(tensor.name, pickled(tensor.view, key));
    storages.emplace_back(key, bytes_of(tensor.view));
    if (!form.has_training_state) continue;
    average.emplace_back(tensor.name, pickled(tensor.view, key + "e"));
    storages.emplace_back(key + "e", std::string(static_cast<size_t>(tensor.view.bytes()), '\0'));
  }
  std::string body = pickle::dict(state);
  if (!form.wrapper.empty()) {
    std::vector<std::pair<std::string, std::string>> outer;
    if (form.has_training_state) {
      outer.emplace_back("ema", pickle::dict(average));
      outer.emplace_back("optimizer",
                         pickle::dict({{"state", pickle::dict({{"0", average.front().second}})}}));
      outer.emplace_back("steps", pickle::integer(1000));
    }
    outer.emplace_back(form.wrapper, body);
    body = pickle::dict(outer);
  }
  write_text(path, zip_bytes(torch_entries(pickle::whole(body), storages)));
}

void write_lantern_checkpoint(const std::string& path, const WeightSource& weights) {
  static const std::map<std::string, std::string> kNames{
      {"attention.wo", "self_attn.o_proj"},  {"feed_forward.w1", "mlp.gate_proj"},
      {"feed_forward.w2", "mlp.down_proj"},  {"feed_forward.w3", "mlp.up_proj"},
      {"attention_norm", "input_layernorm"}, {"ffn_norm", "post_attention_layernorm"},
      {"tok_embeddings", "embed_tokens"}};
  std::vector<NamedTensor> tensors;
  for (const NamedTensor& tensor : weights.tensors()) {
    if (tensor.name == "output.weight") {
      tensors.push_back({"lm_head.weight", tensor.view});
      continue;
    }
    const std::string name = "model." + tensor.name;
    if (name.find("wqkv") == std::string::npos) {
      std::string renamed = name;
      for (const auto& [from, to] : kNames) renamed = replaced(renamed, from, to);
      tensors.push_back({renamed, tensor.view});
      continue;
    }
    const int64_t rows = tensor.view.shape[0] / 3, width = tensor.view.shape[1];
    for (int64_t part = 0; part < 3; ++part) {
      HostView view{tensor.view.data + part * rows * width * dtype_size(tensor.view.dtype),
                    tensor.view.dtype,
                    {rows, width}};
      const std::string to = "self_attn." + std::string(1, "qkv"[part]) + "_proj";
      tensors.push_back({replaced(name, "attention.wqkv", to), view});
    }
  }
  write_safetensors(path, tensors);
}

void write_without(const std::string& path, const WeightSource& weights, const std::string& name) {
  std::vector<NamedTensor> tensors = weights.tensors();
  std::erase_if(tensors, [&](const NamedTensor& tensor) { return tensor.name == name; });
  write_safetensors(path, tensors);
}

void write_with(const std::string& path, const WeightSource& weights, const std::string& name, Shape shape) {
  const std::vector<float> zeros(static_cast<size_t>(shape.size()), 0.0f);
  std::vector<NamedTensor> tensors = weights.tensors();
  tensors.push_back({name, {reinterpret_cast<const std::byte*>(zeros.data()), DType::kF32, shape}});
  write_safetensors(path, tensors);
}

}  // namespace volley::test
