#include "apps/model_info.h"

#include <array>
#include <string_view>

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
    Mark{"whisper", {"model.encoder.conv1.weight", "model.decoder.embed_tokens.weight"}},
    Mark{"whisper", {"encoder.conv1.weight", "decoder.token_embedding.weight"}},
    Mark{"whisfusion", {"transformer.h.0.cross_attn.kv_proj.weight", nullptr}},
    Mark{"smdm", {"transformer.h.0.norm_1.weight", "lm_head.weight"}},
};

bool has(const WeightSource& weights, const std::string& name) {
  return weights.find(name) != nullptr || weights.find(name + ".quants") != nullptr;
}

}  // namespace

std::string recognise_family(const WeightSource& weights) {
  if (const auto kind = image::recognise_checkpoint(weights)) {
    return std::string(image::checkpoint_kind_name(*kind));
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
    const int64_t size = tensor.view.shape.size();
    ++info.tensors;
    info.bytes += tensor.view.bytes();
    const std::string_view name = tensor.name;
    const bool is_scale = name.ends_with(".scales") &&
                          weights.find(std::string(name.substr(0, name.size() - 7)) + ".quants") != nullptr;
    if (!is_scale) info.parameters += size;
    info.dtypes[std::string(dtype_name(tensor.view.dtype))] += size;
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
