// Random checkpoints of published sizes. Values are uniform with the mean and deviation that training starts
// from, which keeps every activation and logit of an ordinary size.
#include "tests/bench/random_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/base/error.h"
#include "core/base/noise.h"
#include "core/base/thread_pool.h"
#include "core/io/safetensors.h"

namespace volley {
namespace {

struct TransformerSize {
  int64_t dim = 1024;
  int64_t layers = 24;
  int64_t vocab = 16384;
  int64_t classes = 1000;

  // As the authors round it: up to a multiple of 256.
  int64_t ffn() const { return (8 * dim / 3 + 255) / 256 * 256; }
};

class TensorList {
 public:
  void linear(const std::string& name, int64_t out, int64_t in) {
    tensors_.push_back({.name = name + ".weight", .shape = {out, in}});
  }
  void linear_with_bias(const std::string& name, int64_t out, int64_t in) {
    linear(name, out, in);
    tensors_.push_back({.name = name + ".bias", .shape = {out}});
  }
  void norm(const std::string& name, int64_t width) {
    tensors_.push_back({.name = name + ".weight", .shape = {width}, .mean = 1.0f, .deviation = 0.1f});
  }
  void norm_with_bias(const std::string& name, int64_t width) {
    norm(name, width);
    tensors_.push_back({.name = name + ".bias", .shape = {width}});
  }
  void conv(const std::string& name, int64_t out, int64_t in, int64_t kernel) {
    const float deviation = 1.0f / std::sqrt(static_cast<float>(in * kernel * kernel));
    tensors_.push_back(
        {.name = name + ".weight", .shape = {out, in, kernel, kernel}, .deviation = deviation});
    tensors_.push_back({.name = name + ".bias", .shape = {out}});
  }
  void conv1d(const std::string& name, int64_t out, int64_t in, int64_t kernel) {
    const float deviation = 1.0f / std::sqrt(static_cast<float>(in * kernel));
    tensors_.push_back({.name = name + ".weight", .shape = {out, in, kernel}, .deviation = deviation});
    tensors_.push_back({.name = name + ".bias", .shape = {out}});
  }
  std::vector<RandomTensor> take() { return std::move(tensors_); }

 private:
  std::vector<RandomTensor> tensors_;
};

void add_feed_forward(TensorList& list, const std::string& prefix, const TransformerSize& size) {
  list.linear(prefix + "w1", size.ffn(), size.dim);
  list.linear(prefix + "w3", size.ffn(), size.dim);
  list.linear(prefix + "w2", size.dim, size.ffn());
}

std::vector<RandomTensor> arpg_tensors(const TransformerSize& size) {
  const int64_t dim = size.dim;
  TensorList list;
  list.linear("embeddings", size.vocab + size.classes + 3, dim);
  for (int64_t l = 0; l < size.layers / 2; ++l) {
    const std::string self = "layers.self_dec." + std::to_string(l) + ".";
    for (const char* name : {"attn.to_q", "attn.to_k", "attn.to_v", "attn.proj"})
      list.linear(self + name, dim, dim);
    const std::string cross = "layers.cross_dec." + std::to_string(l) + ".";
    for (const char* name : {"attn.to_q", "attn.proj"}) list.linear(cross + name, dim, dim);
    for (const std::string& layer : {self, cross}) {
      list.norm(layer + "attn_norm", dim);
      list.norm(layer + "ffn_norm", dim);
      add_feed_forward(list, layer + "ffn.", size);
    }
  }
  list.norm("layers.norm", dim);
  list.linear("layers.to_k", dim, dim);
  list.linear("layers.to_v", dim, dim);
  list.norm("norm", dim);
  list.linear("head", size.vocab, dim);
  return list.take();
}

std::vector<RandomTensor> llamagen_tensors(const TransformerSize& size) {
  const int64_t dim = size.dim;
  TensorList list;
  list.linear("tok_embeddings", size.vocab, dim);
  list.linear("cls_embedding.embedding_table", size.classes + 1, dim);
  for (int64_t l = 0; l < size.layers; ++l) {
    const std::string layer = "layers." + std::to_string(l) + ".";
    list.norm(layer + "attention_norm", dim);
    list.linear(layer + "attention.wqkv", 3 * dim, dim);
    list.linear(layer + "attention.wo", dim, dim);
    list.norm(layer + "ffn_norm", dim);
    add_feed_forward(list, layer + "feed_forward.", size);
  }
  list.norm("norm", dim);
  list.linear("output", size.vocab, dim);
  return list.take();
}

void add_res_block(TensorList& list, const std::string& prefix, int64_t in, int64_t out) {
  list.norm_with_bias(prefix + "norm1", in);
  list.conv(prefix + "conv1", out, in, 3);
  list.norm_with_bias(prefix + "norm2", out);
  list.conv(prefix + "conv2", out, out, 3);
  if (in != out) list.conv(prefix + "nin_shortcut", out, in, 1);
}

void add_attention(TensorList& list, const std::string& prefix, int64_t channels) {
  list.norm_with_bias(prefix + "norm", channels);
  for (const char* name : {"q", "k", "v", "proj_out"}) list.conv(prefix + name, channels, channels, 1);
}

void add_middle(TensorList& list, const std::string& prefix, int64_t channels) {
  add_res_block(list, prefix + "0.", channels, channels);
  add_attention(list, prefix + "1.", channels);
  add_res_block(list, prefix + "2.", channels, channels);
}

// `in` channels become `out` in `blocks` blocks, with attention behind each at the deepest level.
struct LevelSize {
  int64_t in = 0, out = 0, blocks = 0;
  bool is_deepest = false;
};
void add_level(TensorList& list, const std::string& prefix, const LevelSize& size) {
  for (int64_t i = 0; i < size.blocks; ++i) {
    const std::string index = std::to_string(i) + ".";
    add_res_block(list, prefix + "res." + index, i == 0 ? size.in : size.out, size.out);
    if (size.is_deepest) add_attention(list, prefix + "attn." + index, size.out);
  }
}

std::vector<RandomTensor> vq_tensors() {
  constexpr int64_t kChannels = 128, kLatent = 256, kCodes = 16384, kCodeWidth = 8, kBlocks = 2;
  constexpr std::array<int64_t, 5> kWidths{kChannels, kChannels, 2 * kChannels, 2 * kChannels, 4 * kChannels};
  TensorList list;
  list.linear("quantize.embedding", kCodes, kCodeWidth);
  list.conv("encoder.conv_in", kChannels, 3, 3);
  list.conv("decoder.conv_in", kWidths.back(), kLatent, 3);
  for (size_t i = 0; i < kWidths.size(); ++i) {
    const std::string block = ".conv_blocks." + std::to_string(i) + ".";
    const bool is_last = i + 1 == kWidths.size();
    add_level(
        list, "encoder" + block,
        {.in = kWidths[i == 0 ? 0 : i - 1], .out = kWidths[i], .blocks = kBlocks, .is_deepest = is_last});
    if (!is_last) list.conv("encoder" + block + "downsample.conv", kWidths[i], kWidths[i], 3);
    // The decoder counts its levels from the deepest.
    const int64_t width = kWidths[kWidths.size() - 1 - i];
    add_level(list, "decoder" + block,
              {.in = i == 0 ? width : kWidths[kWidths.size() - i],
               .out = width,
               .blocks = kBlocks + 1,
               .is_deepest = i == 0});
    if (!is_last) list.conv("decoder" + block + "upsample.conv", width, width, 3);
  }
  add_middle(list, "encoder.mid.", kWidths.back());
  add_middle(list, "decoder.mid.", kWidths.back());
  list.norm_with_bias("encoder.norm_out", kWidths.back());
  list.conv("encoder.conv_out", kLatent, kWidths.back(), 3);
  list.norm_with_bias("decoder.norm_out", kWidths.front());
  list.conv("decoder.conv_out", 3, kWidths.front(), 3);
  list.conv("quant_conv", kCodeWidth, kLatent, 1);
  list.conv("post_quant_conv", kLatent, kCodeWidth, 1);
  return list.take();
}

// Ref: openai/whisper, model.py; names of huggingface/transformers.
void add_whisper_attention(TensorList& list, const std::string& prefix, int64_t dim) {
  for (const char* name : {"q_proj", "v_proj", "out_proj"}) list.linear_with_bias(prefix + name, dim, dim);
  list.linear(prefix + "k_proj", dim, dim);
}

std::vector<RandomTensor> whisper_tensors() {
  constexpr int64_t kDim = 768, kLayers = 12, kMel = 80, kFrames = 1500, kTokens = 448, kVocab = 51865;
  TensorList list;
  const std::string encoder = "model.encoder.", decoder = "model.decoder.";
  list.conv1d(encoder + "conv1", kDim, kMel, 3);
  list.conv1d(encoder + "conv2", kDim, kDim, 3);
  list.linear(encoder + "embed_positions", kFrames, kDim);
  list.linear(decoder + "embed_positions", kTokens, kDim);
  list.linear(decoder + "embed_tokens", kVocab, kDim);
  for (const std::string& side : {encoder, decoder}) {
    list.norm_with_bias(side + "layer_norm", kDim);
    for (int64_t l = 0; l < kLayers; ++l) {
      const std::string layer = side + "layers." + std::to_string(l) + ".";
      list.norm_with_bias(layer + "self_attn_layer_norm", kDim);
      add_whisper_attention(list, layer + "self_attn.", kDim);
      if (side == decoder) {
        list.norm_with_bias(layer + "encoder_attn_layer_norm", kDim);
        add_whisper_attention(list, layer + "encoder_attn.", kDim);
      }
      list.norm_with_bias(layer + "final_layer_norm", kDim);
      list.linear_with_bias(layer + "fc1", 4 * kDim, kDim);
      list.linear_with_bias(layer + "fc2", kDim, 4 * kDim);
    }
  }
  return list.take();
}

// FNV-1a, which names a tensor's noise.
uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// Eight values from each block of noise: 16 bits are plenty for a weight.
void fill(const RandomTensor& tensor, DType dtype, int64_t begin, int64_t end, std::byte* out) {
  const NoiseKey key{.seed = hash_name(tensor.name)};
  const float step = tensor.deviation * std::sqrt(12.0f) / 65536.0f;
  for (int64_t i = begin; i < end; i += 8) {
    const std::array<uint32_t, 4> words = noise_block(key, static_cast<uint32_t>(i / 8));
    for (int64_t j = 0; j < std::min<int64_t>(8, end - i); ++j) {
      const uint32_t bits = (words[static_cast<size_t>(j / 2)] >> (16 * (j % 2))) & 0xffffu;
      const float value = tensor.mean + (static_cast<float>(bits) - 32767.5f) * step;
      if (dtype == DType::kF32) {
        std::memcpy(out + (i + j) * 4, &value, 4);
      } else {
        const uint16_t half = f32_to_bf16(value);
        std::memcpy(out + (i + j) * 2, &half, 2);
      }
    }
  }
}

}  // namespace

const std::vector<std::string>& published_models() {
  static const std::vector<std::string> kModels{"arpg-l",     "arpg-xl", "arpg-xxl",
                                                "llamagen-l", "vq-16",   "whisper-small"};
  return kModels;
}

std::vector<RandomTensor> published_tensors(std::string_view model) {
  if (model == "arpg-l") return arpg_tensors({});
  if (model == "arpg-xl") return arpg_tensors({.dim = 1280, .layers = 36});
  if (model == "arpg-xxl") return arpg_tensors({.dim = 1536, .layers = 48});
  if (model == "llamagen-l") return llamagen_tensors({});
  if (model == "vq-16") return vq_tensors();
  if (model == "whisper-small") return whisper_tensors();
  throw Error("model " + std::string(model) + ": no such published size", ErrorKind::kUsage);
}

void write_random_weights(const std::vector<RandomTensor>& tensors, DType dtype, const std::string& path) {
  VOLLEY_ASSERT(dtype == DType::kF32 || dtype == DType::kBF16);
  ThreadPool threads(physical_cores());
  std::vector<std::vector<std::byte>> bytes(tensors.size());
  std::vector<NamedTensor> named;
  for (size_t t = 0; t < tensors.size(); ++t) {
    const RandomTensor& tensor = tensors[t];
    const HostView empty{.dtype = dtype, .shape = tensor.shape};
    bytes[t].resize(static_cast<size_t>(empty.bytes()));
    constexpr int64_t kChunk = 1 << 20;  // values, a multiple of 8
    const int64_t values = tensor.shape.size();
    threads.parallel_for((values + kChunk - 1) / kChunk, [&](int64_t chunk) {
      fill(tensor, dtype, chunk * kChunk, std::min(values, (chunk + 1) * kChunk), bytes[t].data());
    });
    named.push_back(
        {.name = tensor.name, .view = {.data = bytes[t].data(), .dtype = dtype, .shape = tensor.shape}});
  }
  write_safetensors(path, named);
}

}  // namespace volley
