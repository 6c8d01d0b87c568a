#include "apps/model_info.h"

#include <array>
#include <string_view>

#include "core/nn/packed_weights.h"
#include "image/checkpoint.h"

namespace volley::apps {
namespace {

struct Mark {
  const char* family;
  std::array<const char*, 2> tensors;  // that must be there; the second may be null
};

// The first that fits counts: a mark of a special family stands before that of the general one.
constexpr std::array kMarks{
    Mark{"qwen3", {"model.layers.0.self_attn.q_norm.weight", nullptr}},
    Mark{"qwen2", {"model.layers.0.self_attn.q_proj.bias", nullptr}},
    Mark{"llama", {"model.layers.0.self_attn.q_proj.weight", nullptr}},
    Mark{"llada", {"model.transformer.blocks.0.q_proj.weight", "model.transformer.wte.weight"}},
    Mark{"whisper", {"model.encoder.conv1.weight", "model.decoder.embed_tokens.weight"}},
    Mark{"whisper", {"encoder.conv1.weight", "decoder.token_embedding.weight"}},
    Mark{"whisfusion", {"transformer.h.0.cross_attn.kv_proj.weight", nullptr}},
    Mark{"smdm", {"transformer.h.0.norm_1.weight", "lm_head.weight"}},
};

bool has(const WeightSource& weights, const std::string& name) {
  return weights.find(name) != nullptr || weights.find(name + ".quants") != nullptr;
}

// Parameters that a tensor stands for: the scales of quants and the shapes of packed weights stand for none,
// panels for those of the weight without its padding, but for the padded channels of convolutions.
int64_t parameters_of(const WeightSource& weights, const NamedTensor& tensor) {
  const std::string& name = tensor.name;
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) return tensor.view.shape.size();
  const std::string weight = name.substr(0, dot), plane = name.substr(dot);
  if (plane == ".scales" && weights.find(weight + ".quants") != nullptr) return 0;
  if (weights.find(weight + ".packed_shape") == nullptr) return tensor.view.shape.size();
  return plane.ends_with("_panels") ? find_packed(weights, weight)->shape.size() : 0;
}

}  // namespace

std::string recognise_family(const WeightSource& weights) {
  if (const auto kind = image::recognise_checkpoint(weights)) {
    return std::string(image::checkpoint_kind_name(*kind));
  }
  // A GGUF file says what it is.
  const auto stated = weights.metadata().find("general.architecture");
  if (stated != weights.metadata().end()) {
    for (const char* family : {"llama", "qwen2", "qwen3", "llada"}) {
      if (stated->second == family) return family;
    }
  }
  for (const Mark& mark : kMarks) {
    if (has(weights, mark.tensors[0]) && (mark.tensors[1] == nullptr || has(weights, mark.tensors[1]))) {
      return mark.family;
    }
  }
  return {};
}

WeightsInfo describe_weights(const WeightSource& weights) {
  WeightsInfo info{.path = weights.path(), .family = recognise_family(weights)};
  for (const NamedTensor& tensor : weights.tensors()) {
    const int64_t size = parameters_of(weights, tensor);
    ++info.tensors;
    info.bytes += tensor.view.bytes();
    info.parameters += size;
    info.dtypes[std::string(dtype_name(tensor.view.dtype))] += tensor.view.shape.size();
  }
  return info;
}

nlohmann::json to_json(const WeightsInfo& info) {
  nlohmann::json json{{"path", info.path},
                      {"tensors", info.tensors},
                      {"parameters", info.parameters},
                      {"bytes", info.bytes},
                      {"dtypes", info.dtypes}};
  if (!info.family.empty()) json["family"] = info.family;
  return json;
}

}  // namespace volley::apps
