// Published checkpoints of this modality: which is which, and under which names their tensors stand.
#include "image/checkpoint.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "core/io/json.h"
#include "core/nn/packed_weights.h"

namespace volley::image {
namespace {

// Names of transformers' Llama with the part they stand for. Ref: jadohu/LANTERN, modeling_llamagen_kv.py.
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kOuterNames{
    {{"model.embed_tokens.weight", "tok_embeddings.weight"},
     {"model.norm.weight", "norm.weight"},
     {"lm_head.weight", "output.weight"},
     {"model.freqs_cis", "freqs_cis"},
     {"freqs_cis", "freqs_cis"}}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kLayerNames{
    {{"self_attn.q_proj.weight", "attention.wq.weight"},
     {"self_attn.k_proj.weight", "attention.wk.weight"},
     {"self_attn.v_proj.weight", "attention.wv.weight"},
     {"self_attn.o_proj.weight", "attention.wo.weight"},
     {"mlp.gate_proj.weight", "feed_forward.w1.weight"},
     {"mlp.down_proj.weight", "feed_forward.w2.weight"},
     {"mlp.up_proj.weight", "feed_forward.w3.weight"},
     {"input_layernorm.weight", "attention_norm.weight"},
     {"post_attention_layernorm.weight", "ffn_norm.weight"}}};

template <size_t N>
std::string_view lookup(const std::array<std::pair<std::string_view, std::string_view>, N>& table,
                        std::string_view name) {
  const auto found = std::ranges::find(table, name, &std::pair<std::string_view, std::string_view>::first);
  return found == table.end() ? std::string_view() : found->second;
}

// The authors' name of a tensor; a name that is not known stays, for the loader to refuse.
std::string authors_name(const std::string& name) {
  constexpr std::string_view kCondition = "model.cls_embedding.", kLayers = "model.layers.";
  if (const std::string_view outer = lookup(kOuterNames, name); !outer.empty()) return std::string(outer);
  if (name.starts_with(kCondition)) return name.substr(std::string_view("model.").size());
  if (!name.starts_with(kLayers)) return name;
  const size_t dot = name.find('.', kLayers.size());
  if (dot == std::string::npos) return name;
  const std::string_view part = lookup(kLayerNames, std::string_view(name).substr(dot + 1));
  if (part.empty()) return name;
  return "layers." + name.substr(kLayers.size(), dot - kLayers.size()) + "." + std::string(part);
}

class RenamedWeights : public WeightSource {
 public:
  explicit RenamedWeights(std::unique_ptr<WeightSource> source) : source_(std::move(source)) {
    for (const NamedTensor& tensor : source_->tensors())
      tensors_.push_back({authors_name(tensor.name), tensor.view});
    std::ranges::sort(tensors_, {}, &NamedTensor::name);
    const auto twin = std::ranges::adjacent_find(tensors_, {}, &NamedTensor::name);
    if (twin != tensors_.end()) throw Error(path() + ": tensor " + twin->name + " stands there twice");
  }
  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  const std::string& path() const override { return source_->path(); }
  std::shared_ptr<const void> owner() const override { return source_->owner(); }
  const std::map<std::string, std::string>& metadata() const override { return source_->metadata(); }

 private:
  std::unique_ptr<WeightSource> source_;
  std::vector<NamedTensor> tensors_;
};

bool has(const WeightSource& weights, const std::string& name) {
  return stored_shape(weights, name).has_value();
}

}  // namespace

std::string_view checkpoint_kind_name(CheckpointKind kind) {
  switch (kind) {
    case CheckpointKind::kLlamaGenClass:
      return "llamagen c2i";
    case CheckpointKind::kLlamaGenCaption:
      return "llamagen t2i";
    case CheckpointKind::kArpg:
      return "arpg";
    case CheckpointKind::kVq:
      return "llamagen vq";
  }
  return "?";
}

std::optional<CheckpointKind> recognise_checkpoint(const WeightSource& weights) {
  if (has(weights, "layers.self_dec.0.attn.to_q.weight") && has(weights, "embeddings.weight"))
    return CheckpointKind::kArpg;
  if (has(weights, "quantize.embedding.weight") && has(weights, "decoder.conv_in.weight"))
    return CheckpointKind::kVq;
  for (const std::string prefix : {"", "model."}) {
    const bool has_layers = has(
        weights, prefix.empty() ? "layers.0.attention.wo.weight" : "model.layers.0.self_attn.q_proj.weight");
    if (!has_layers) continue;
    if (has(weights, prefix + "cls_embedding.uncond_embedding")) return CheckpointKind::kLlamaGenCaption;
    if (has(weights, prefix + "cls_embedding.embedding_table.weight")) return CheckpointKind::kLlamaGenClass;
  }
  return std::nullopt;
}

std::unique_ptr<WeightSource> open_image_weights(const std::string& path, CrcCheck crc) {
  std::unique_ptr<WeightSource> source = open_weights(path, crc);
  if (source->find("model.embed_tokens.weight") == nullptr) return source;
  return std::make_unique<RenamedWeights>(std::move(source));
}

StatedSizes read_stated_sizes(const std::string& path) {
  std::error_code code;
  if (!std::filesystem::exists(path, code)) return {};
  const nlohmann::json json = read_json_file(path);
  const JsonFields fields(json, path);
  const auto either = [&](const char* ours, const char* theirs) { return fields.has(ours) ? ours : theirs; };
  StatedSizes stated;
  if (const char* key = either("n_head", "num_attention_heads"); fields.has(key))
    stated.n_head = fields.integer(key, {1, 4096});
  if (const char* key = either("norm_eps", "rms_norm_eps"); fields.has(key))
    stated.norm_eps = static_cast<float>(fields.number(key, {0.0, 1.0}));
  if (const char* key = either("rope_base", "rope_theta"); fields.has(key))
    stated.rope_base = static_cast<float>(fields.number(key, {1.0, 1e9}));
  return stated;
}

}  // namespace volley::image
