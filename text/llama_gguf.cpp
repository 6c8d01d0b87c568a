// A GGUF file of the Llama kind -> LlamaConfig and weights named as in transformers.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/io/convert.h"
#include "core/io/untrusted_text.h"
#include "core/nn/rope_table.h"
#include "text/config_ranges.h"
#include "text/llama_checkpoint.h"

namespace volley::text {
namespace {

constexpr std::string_view kRopeDivisors = "rope_freqs.weight";

using Names = std::pair<std::string_view, std::string_view>;  // in the file, in transformers

constexpr std::array<Names, 3> kModelNames{
    {{"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}}};

constexpr std::array<Names, 11> kLayerNames{{{"attn_norm", "input_layernorm"},
                                             {"attn_q", "self_attn.q_proj"},
                                             {"attn_k", "self_attn.k_proj"},
                                             {"attn_v", "self_attn.v_proj"},
                                             {"attn_output", "self_attn.o_proj"},
                                             {"attn_q_norm", "self_attn.q_norm"},
                                             {"attn_k_norm", "self_attn.k_norm"},
                                             {"ffn_norm", "post_attention_layernorm"},
                                             {"ffn_gate", "mlp.gate_proj"},
                                             {"ffn_up", "mlp.up_proj"},
                                             {"ffn_down", "mlp.down_proj"}}};

std::optional<std::string_view> renamed(std::span<const Names> names, std::string_view stem) {
  const auto found = std::ranges::find(names, stem, &Names::first);
  return found == names.end() ? std::nullopt : std::optional(found->second);
}

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight". Names that mean nothing here stay, and
// are refused as tensors that the model does not have.
std::string transformers_name(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) return name;
  const std::string stem = name.substr(0, dot), kind = name.substr(dot);
  if (const auto found = renamed(kModelNames, stem)) return std::string(*found) + kind;
  constexpr std::string_view kBlock = "blk.";
  const size_t after = stem.find('.', kBlock.size());
  if (!stem.starts_with(kBlock) || after == std::string::npos) return name;
  const auto found = renamed(kLayerNames, std::string_view(stem).substr(after + 1));
  if (!found) return name;
  return "model.layers." + stem.substr(kBlock.size(), after - kBlock.size()) + "." + std::string(*found) +
         kind;
}

[[noreturn]] void fail(const GgufFile& file, std::string_view tensor, const std::string& fault) {
  throw Error(file.path() + ": tensor " + quote(tensor) + ": " + fault);
}

// The architecture's keys, "llama.block_count" and so on.
class Keys {
 public:
  explicit Keys(const GgufFile& file)
      : values_(file.values()), architecture_(values_.text("general.architecture")) {
    constexpr std::array<std::string_view, 4> kKnown{"llama", "qwen2", "qwen3", "llada"};
    if (std::ranges::count(kKnown, architecture_) == 0) {
      values_.fail("general.architecture",
                   "expected 'llama', 'qwen2', 'qwen3' or 'llada', found " + quote(architecture_));
    }
  }

  const std::string& architecture() const { return architecture_; }
  // Rows of q and k are stored in pairs of neighbours.
  bool has_pairs() const { return architecture_ == "llama" || architecture_ == "llada"; }
  int64_t integer(const char* name, IntRange range) const { return values_.integer(key(name), range); }
  int64_t integer_or(const char* name, int64_t fallback, IntRange range = {}) const {
    return values_.integer_or(key(name), fallback, range);
  }
  float number(const char* name) const { return static_cast<float>(values_.number(key(name))); }
  float number_or(const char* name, float fallback) const {
    return static_cast<float>(values_.number_or(key(name), static_cast<double>(fallback)));
  }
  std::string text_or(const char* name, const char* fallback) const {
    return std::string(values_.text_or(key(name), fallback));
  }
  [[noreturn]] void fail(const char* name, const std::string& fault) const { values_.fail(key(name), fault); }

 private:
  std::string key(const char* name) const { return architecture_ + "." + name; }

  const GgufMetadata& values_;
  std::string architecture_;
};

void refuse_unsupported(const Keys& keys, int64_t context) {
  if (keys.integer_or("expert_count", 0) > 0) {
    keys.fail("expert_count", "mixtures of experts are not supported");
  }
  const std::string scaling = keys.text_or("rope.scaling.type", "none");
  if (scaling != "none") keys.fail("rope.scaling.type", quote(scaling) + " is not supported");
  if (keys.number_or("rope.scale_linear", 1.0f) != 1.0f) keys.fail("rope.scale_linear", "is not supported");
  const int64_t window = keys.integer_or("attention.sliding_window", 0);
  if (window > 0 && window < context) {
    keys.fail("attention.sliding_window", "sliding windows are not supported");
  }
}

AttentionShape attention_shape(const Keys& keys, int64_t hidden) {
  const int64_t heads = keys.integer("attention.head_count", {1, 4096});
  const int64_t kv_heads = keys.integer_or("attention.head_count_kv", heads, {1, heads});
  if (heads % kv_heads != 0) {
    keys.fail("attention.head_count_kv",
              std::to_string(kv_heads) + " does not divide " + std::to_string(heads) + " heads");
  }
  const int64_t width = keys.integer_or("attention.key_length", hidden / heads, {2, 4096});
  if (width < 2 || width % 2 != 0) {
    keys.fail("attention.head_count",
              "heads of " + std::to_string(width) + " values, expected an even width");
  }
  for (const char* name : {"attention.value_length", "rope.dimension_count"}) {
    const int64_t found = keys.integer_or(name, width);
    if (found != width) {
      keys.fail(name,
                "expected the heads' width " + std::to_string(width) + ", found " + std::to_string(found));
    }
  }
  return {.heads = heads, .kv_heads = kv_heads, .head_width = width};
}

std::vector<float> frequencies(const GgufFile& file, const Keys& keys, int64_t head_width) {
  const float theta = keys.number_or("rope.freq_base", 10000.0f);
  if (!(theta > 0.0f) || std::isinf(theta)) keys.fail("rope.freq_base", "expected a positive number");
  std::vector<float> frequencies = rope_frequencies(head_width, theta);
  const HostView* view = file.find(kRopeDivisors);
  if (view == nullptr) return frequencies;
  if (view->dtype != DType::kF32 || view->shape != Shape({head_width / 2})) {
    fail(file, kRopeDivisors,
         "expected f32 " + Shape({head_width / 2}).to_string() + ", found " +
             std::string(dtype_name(view->dtype)) + " " + view->shape.to_string());
  }
  const std::vector<float> divisors = to_f32(*view);
  for (size_t i = 0; i < divisors.size(); ++i) {
    if (!(divisors[i] > 0.0f) || std::isinf(divisors[i]))
      fail(file, kRopeDivisors, "expected positive numbers");
    frequencies[i] /= divisors[i];
  }
  return frequencies;
}

LlamaConfig read_config(const GgufFile& file, const Keys& keys) {
  const int64_t hidden = keys.integer("embedding_length", kSize);
  const HostView* table = file.find("token_embd.weight");
  if (table == nullptr) fail(file, "token_embd.weight", "missing");
  const int64_t vocabulary = table->shape.rank() == 2 ? table->shape[0] : 0;
  if (vocabulary < 1 || vocabulary > kMaxSize || table->shape[1] != hidden) {
    fail(file, "token_embd.weight",
         "expected shape [vocabulary, " + std::to_string(hidden) + "], found " + table->shape.to_string());
  }
  LlamaConfig config{.vocab_size = vocabulary,
                     .hidden_size = hidden,
                     .intermediate_size = keys.integer("feed_forward_length", kSize),
                     .num_hidden_layers = keys.integer("block_count", {1, 4096}),
                     .attention = attention_shape(keys, hidden),
                     .max_position_embeddings = keys.integer("context_length", kSize),
                     .rms_norm_eps = keys.number("attention.layer_norm_rms_epsilon"),
                     .attention_bias = keys.architecture() == "qwen2",
                     .qk_norm = keys.architecture() == "qwen3",
                     .tie_word_embeddings = file.find("output.weight") == nullptr};
  if (!(config.rms_norm_eps >= 0.0f) || std::isinf(config.rms_norm_eps)) {
    keys.fail("attention.layer_norm_rms_epsilon", "expected a number of at least 0");
  }
  if (keys.architecture() == "llada") {
    config.kind = ModelKind::kMasked;
    config.mask_token = static_cast<int32_t>(
        file.values().integer("tokenizer.ggml.mask_token_id", {0, config.vocab_size - 1}));
  }
  refuse_unsupported(keys, config.max_position_embeddings);
  config.rope_frequencies = frequencies(file, keys, config.attention.head_width);
  return config;
}

// The tensors of a file under other names, some of them copied.
class GgufWeights : public WeightSource {
 public:
  explicit GgufWeights(std::shared_ptr<const GgufFile> file) : file_(std::move(file)) {}

  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  const std::string& path() const override { return file_->path(); }
  const std::map<std::string, std::string>& metadata() const override { return file_->metadata(); }

  void release(const HostView& view) const override { file_->release(view); }

  void add(std::string name, const HostView& view) { tensors_.push_back({std::move(name), view}); }
  // Adds rows of heads that are stored as pairs of neighbours, in the order of halves.
  void add_split_half(std::string name, const HostView& view, int64_t head_width) {
    const int64_t rows = view.shape[0], row_bytes = view.bytes() / rows;
    std::vector<std::byte>& copy = copies_.emplace_back(static_cast<size_t>(view.bytes()));
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t head = row / head_width, i = row % head_width;
      const int64_t to = head * head_width + i % 2 * (head_width / 2) + i / 2;
      std::memcpy(copy.data() + to * row_bytes, view.data + row * row_bytes, static_cast<size_t>(row_bytes));
    }
    file_->release(view);
    add(std::move(name), {copy.data(), view.dtype, view.shape});
  }
  void finish() {
    if (const auto twin = sort_by_name(tensors_)) fail(*file_, *twin, "occurs under two names");
  }

 private:
  std::shared_ptr<const GgufFile> file_;
  std::vector<NamedTensor> tensors_;
  std::vector<std::vector<std::byte>> copies_;
};

// True for the tensors whose rows the rotary embedding turns.
bool is_rotated(std::string_view name) {
  return name.starts_with("blk.") && (name.ends_with(".attn_q.weight") || name.ends_with(".attn_k.weight"));
}

}  // namespace

LlamaCheckpoint llama_from_gguf(std::unique_ptr<GgufFile> opened) {
  const std::shared_ptr<const GgufFile> file = std::move(opened);
  const Keys keys(*file);
  LlamaCheckpoint checkpoint{.config = read_config(*file, keys), .gguf = file};
  auto weights = std::make_unique<GgufWeights>(file);
  const auto& [heads, kv_heads, width] = checkpoint.config.attention;
  for (const NamedTensor& tensor : file->tensors()) {
    if (tensor.name == kRopeDivisors) continue;
    std::string name = transformers_name(tensor.name);
    if (!keys.has_pairs() || !is_rotated(tensor.name)) {
      weights->add(std::move(name), tensor.view);
      continue;
    }
    const int64_t rows = (tensor.name.ends_with("q.weight") ? heads : kv_heads) * width;
    const Shape expected{rows, checkpoint.config.hidden_size};
    if (tensor.view.shape != expected) {
      fail(*file, tensor.name,
           "expected shape " + expected.to_string() + ", found " + tensor.view.shape.to_string());
    }
    weights->add_split_half(std::move(name), tensor.view, width);
  }
  weights->finish();
  checkpoint.weights = std::move(weights);
  return checkpoint;
}

}  // namespace volley::text
