#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/reference/reference_backend.h"
#include "core/base/error.h"
#include "core/io/convert.h"
#include "core/io/safetensors.h"
#include "tests/unit/io/file_builders.h"
#include "tests/unit/io/temp_folder.h"
#include "tests/unit/text/gguf_case.h"
#include "text/llama_checkpoint.h"

namespace volley::test {
namespace {

constexpr WeightType kTypes[] = {WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0};

std::vector<std::shared_ptr<const Backend>> backends() {
  return {make_cpu_backend(2), make_reference_backend()};
}

class LlamaGguf : public testing::TestWithParam<const char*> {
 protected:
  text::LlamaCheckpoint open(const GgufImage& image) {
    return text::open_llama(write_text(folder_.file("model.gguf"), image.bytes()));
  }

  TempFolder folder_;
};

TEST_P(LlamaGguf, ConfigIsThatOfTransformers) {
  const TextCase from(GetParam());
  const text::LlamaConfig config = open(gguf_of(from)).config;
  EXPECT_EQ(config.vocab_size, from.config.vocab_size);
  EXPECT_EQ(config.hidden_size, from.config.hidden_size);
  EXPECT_EQ(config.intermediate_size, from.config.intermediate_size);
  EXPECT_EQ(config.num_hidden_layers, from.config.num_hidden_layers);
  EXPECT_EQ(config.attention.heads, from.config.attention.heads);
  EXPECT_EQ(config.attention.kv_heads, from.config.attention.kv_heads);
  EXPECT_EQ(config.attention.head_width, from.config.attention.head_width);
  EXPECT_EQ(config.max_position_embeddings, from.config.max_position_embeddings);
  EXPECT_EQ(config.rms_norm_eps, from.config.rms_norm_eps);
  EXPECT_EQ(config.attention_bias, from.config.attention_bias);
  EXPECT_EQ(config.qk_norm, from.config.qk_norm);
  EXPECT_EQ(config.mask_token, from.config.mask_token);
  EXPECT_EQ(config.tie_word_embeddings, from.config.tie_word_embeddings);
  ASSERT_EQ(config.rope_frequencies.size(), from.config.rope_frequencies.size());
  for (size_t i = 0; i < config.rope_frequencies.size(); ++i) {
    // Llama 3's went through a division and back.
    EXPECT_NEAR(config.rope_frequencies[i] / from.config.rope_frequencies[i], 1.0f, 2e-7f);
  }
}

TEST_P(LlamaGguf, LogitsEqualThoseOfSafetensorsBitForBit) {
  const TextCase from(GetParam());
  text::LlamaCheckpoint checkpoint = open(gguf_of(from));
  checkpoint.config.rope_frequencies = from.config.rope_frequencies;  // but for the last bit of Llama 3's
  for (const auto& backend : backends()) {
    for (const WeightType type : kTypes) {
      const std::vector<float> expected = all_logits(from.config, *from.weights, backend, type);
      ASSERT_GT(std::ranges::max(expected) - std::ranges::min(expected), 0.1f);
      EXPECT_EQ(all_logits(checkpoint.config, *checkpoint.weights, backend, type), expected)
          << backend->info().name << " " << static_cast<int>(type);
    }
  }
}

TEST_P(LlamaGguf, ItsOwnFrequenciesGiveTheSameLogits) {
  const TextCase from(GetParam());
  const text::LlamaCheckpoint checkpoint = open(gguf_of(from));
  const auto backend = make_cpu_backend(2);
  const auto expected = all_logits(from.config, *from.weights, backend, WeightType::kF32);
  const auto found = all_logits(checkpoint.config, *checkpoint.weights, backend, WeightType::kF32);
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_LE(std::fabs(found[i] - expected[i]), 1e-4f + 1e-4f * std::fabs(expected[i])) << i;
  }
}

// The same numbers as q8_0 planes of a safetensors file.
TEST_P(LlamaGguf, Q8WeightsAreTakenAsTheyAre) {
  const TextCase from(GetParam());
  text::LlamaCheckpoint checkpoint = open(gguf_of(from, encode_q8_0));
  checkpoint.config.rope_frequencies = from.config.rope_frequencies;
  HeldWeights planes;
  for (const NamedTensor& tensor : from.weights->tensors()) {
    const Shape& shape = tensor.view.shape;
    const std::vector<float> values = to_f32(tensor.view);
    if (shape.rank() != 2) {
      planes.add(tensor.name, DType::kF32, shape, encode_f32(values).bytes);
      continue;
    }
    const std::string blocks = q8_0_blocks(values);
    std::string quants, scales;
    for (size_t at = 0; at < blocks.size(); at += 34) {
      scales += blocks.substr(at, 2);
      quants += blocks.substr(at + 2, 32);
    }
    planes.add(tensor.name + ".quants", DType::kI8, shape, quants);
    planes.add(tensor.name + ".scales", DType::kF16, {shape[0], shape[1] / 32}, scales);
  }
  planes.finish();
  for (const auto& backend : backends()) {
    for (const WeightType type : kTypes) {
      EXPECT_EQ(all_logits(checkpoint.config, *checkpoint.weights, backend, type),
                all_logits(from.config, planes, backend, type))
          << backend->info().name << " " << static_cast<int>(type);
    }
  }
}

// The same numbers as floats.
TEST_P(LlamaGguf, Q4WeightsLoadIntoEveryType) {
  const TextCase from(GetParam());
  text::LlamaCheckpoint checkpoint = open(gguf_of(from, encode_q4_1));
  checkpoint.config.rope_frequencies = from.config.rope_frequencies;
  HeldWeights floats;
  for (const NamedTensor& tensor : from.weights->tensors()) {
    std::vector<float> values = to_f32(tensor.view);
    if (tensor.view.shape.rank() == 2) {
      const std::string blocks = q4_1_blocks(values);
      values = to_f32({as_bytes(blocks).data(), DType::kQ4_1, tensor.view.shape});
    }
    floats.add(tensor.name, DType::kF32, tensor.view.shape, encode_f32(values).bytes);
  }
  floats.finish();
  for (const auto& backend : backends()) {
    for (const WeightType type : kTypes) {
      EXPECT_EQ(all_logits(checkpoint.config, *checkpoint.weights, backend, type),
                all_logits(from.config, floats, backend, type))
          << backend->info().name << " " << static_cast<int>(type);
    }
  }
}

// With its blocks kept a model is that of its blocks' type, to the bit: the table of embeddings, packed then,
// too.
TEST_P(LlamaGguf, KeptBlocksGiveTheLogitsOfTheirType) {
  const TextCase from(GetParam());
  for (const auto& [encode, type] :
       {std::pair<Encode, WeightType>{encode_q8_0, WeightType::kQ8_0}, {encode_q4_1, WeightType::kQ4_1}}) {
    text::LlamaCheckpoint checkpoint = open(gguf_of(from, encode));
    for (const auto& backend : backends()) {
      SCOPED_TRACE(backend->info().name + " " + std::string(weight_type_name(type)));
      const auto logits = [&](WeightStorage storage) {
        return all_logits(checkpoint.config, *checkpoint.weights, backend, storage);
      };
      EXPECT_EQ(logits(WeightStorage::keeping_blocks(WeightType::kF32)), logits(type));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, LlamaGguf,
                         testing::Values("text_llama", "text_llama3", "text_qwen2", "text_qwen3", "llada"),
                         [](const auto& name) { return std::string(name.param); });

TEST(LlamaCheckpoint, AFolderIsItsConfigAndWeights) {
  const TextCase from("text_qwen2");
  for (const std::string& path : {from.folder, from.folder + "/model.safetensors"}) {
    const text::LlamaCheckpoint checkpoint = text::open_llama(path);
    EXPECT_EQ(checkpoint.gguf, nullptr);
    EXPECT_EQ(checkpoint.config.rope_frequencies, from.config.rope_frequencies);
    EXPECT_TRUE(checkpoint.config.attention_bias);
    EXPECT_EQ(checkpoint.weights->tensors().size(), from.weights->tensors().size());
  }
}

TEST(LlamaCheckpoint, AGgufFileKeepsItsMetadata) {
  const TempFolder folder;
  const std::string path = write_text(folder.file("a"), gguf_of(TextCase("text_llama")).bytes());
  const text::LlamaCheckpoint checkpoint = text::open_llama(path);
  ASSERT_NE(checkpoint.gguf, nullptr);
  EXPECT_EQ(checkpoint.gguf->values().texts("tokenizer.ggml.tokens").size(), 2u);
  EXPECT_EQ(checkpoint.weights->path(), path);
}

// One change of a good file, and what the message must say.
struct Fault {
  const char* expected;
  std::function<void(GgufImage&)> change;
};

void set(GgufImage& image, const std::string& key, const std::string& value) {
  const auto found = std::ranges::find(image.metadata, key, &std::pair<std::string, std::string>::first);
  if (found == image.metadata.end()) {
    image.metadata.emplace_back(key, value);
  } else {
    found->second = value;
  }
}

GgufTensor& tensor(GgufImage& image, const char* name) {
  return *std::ranges::find(image.tensors, name, &GgufTensor::name);
}

TEST(LlamaGgufFaults, EachNamesKeyOrTensor) {
  const auto key = [](const char* name, std::string value, const char* expected) {
    return Fault{expected, [name, value](GgufImage& image) { set(image, name, value); }};
  };
  const std::vector<Fault> faults{
      key("general.architecture", gguf::text("gemma"),
          "'general.architecture': expected 'llama', 'qwen2', 'qwen3' or"),
      key("general.architecture", gguf::u32(1), "'general.architecture': expected a string, found 1"),
      {"metadata 'llama.block_count' is missing",
       [](GgufImage& image) { image.metadata.erase(image.metadata.begin() + 1); }},
      key("llama.block_count", gguf::u32(0),
          "'llama.block_count': expected an integer in [1, 4096], found 0"),
      key("llama.feed_forward_length", gguf::array(4, {raw<uint32_t>(160)}),
          "'llama.feed_forward_length': expected an integer"),
      key("llama.attention.head_count_kv", gguf::u32(3),
          "'llama.attention.head_count_kv': 3 does not divide 4 heads"),
      key("llama.attention.key_length", gguf::u32(15), "heads of 15 values, expected an even width"),
      key("llama.attention.value_length", gguf::u32(8),
          "'llama.attention.value_length': expected the heads' width 16, found 8"),
      key("llama.rope.dimension_count", gguf::u32(8),
          "'llama.rope.dimension_count': expected the heads' width 16"),
      key("llama.rope.freq_base", gguf::f32(-1.0f), "'llama.rope.freq_base': expected a positive number"),
      key("llama.attention.layer_norm_rms_epsilon", gguf::f32(std::nanf("")),
          "expected a number of at least 0"),
      key("llama.rope.scaling.type", gguf::text("yarn"),
          "'llama.rope.scaling.type': 'yarn' is not supported"),
      key("llama.rope.scale_linear", gguf::f32(2.0f), "'llama.rope.scale_linear': is not supported"),
      key("llama.expert_count", gguf::u32(8), "'llama.expert_count': mixtures of experts are not supported"),
      key("llama.attention.sliding_window", gguf::u32(128), "sliding windows are not supported"),
      key("llama.embedding_length", gguf::u32(96),
          "tensor 'token_embd.weight': expected shape [vocabulary, 96], found [300, 64]"),
      {"tensor 'token_embd.weight': missing",
       [](GgufImage& image) { tensor(image, "token_embd.weight").name = "x"; }},
      {"tensor 'blk.0.attn_q.weight': expected shape [64, 64], found [32, 128]",
       [](GgufImage& image) {
         tensor(image, "blk.0.attn_q.weight").shape = {32, 128};
       }},
      {"tensor 'rope_freqs.weight': expected f32 [8], found f32 [4]",
       [](GgufImage& image) {
         image.tensors.push_back({.name = "rope_freqs.weight", .shape = {4}, .bytes = counting_floats(4)});
       }},
      {"tensor 'rope_freqs.weight': expected positive numbers",
       [](GgufImage& image) {
         image.tensors.push_back({.name = "rope_freqs.weight", .shape = {8}, .bytes = counting_floats(8)});
       }},
      {"tensor 'model.norm.weight': occurs under two names",
       [](GgufImage& image) {
         image.tensors.push_back({.name = "model.norm.weight", .shape = {4}, .bytes = counting_floats(4)});
       }},
      {"blk.0.ffn_gate_inp.weight: the model has no such tensor",
       [](GgufImage& image) {
         image.tensors.push_back(
             {.name = "blk.0.ffn_gate_inp.weight", .shape = {4}, .bytes = counting_floats(4)});
       }},
      {"blk.weight: the model has no such tensor",
       [](GgufImage& image) {
         image.tensors.push_back({.name = "blk.weight", .shape = {4}, .bytes = counting_floats(4)});
       }},
      {"self_attn.q_proj.bias: the model has no such tensor",
       [](GgufImage& image) {
         image.tensors.push_back({.name = "blk.0.attn_q.bias", .shape = {4}, .bytes = counting_floats(4)});
       }},
      {"model.layers.2.mlp.down_proj.weight: missing",
       [](GgufImage& image) {
         std::erase_if(image.tensors, [](const GgufTensor& t) { return t.name == "blk.2.ffn_down.weight"; });
       }},
  };
  const TempFolder folder;
  const TextCase from("text_llama");
  const auto backend = make_reference_backend();
  for (const Fault& fault : faults) {
    SCOPED_TRACE(fault.expected);
    GgufImage image = gguf_of(from);
    fault.change(image);
    const std::string path = write_text(folder.file("model.gguf"), image.bytes());
    try {
      text::LlamaCheckpoint checkpoint = text::open_llama(path);
      text::Llama(std::move(checkpoint.config),
                  WeightLoader(*checkpoint.weights, *backend, WeightType::kF32));
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_TRUE(message.starts_with(path)) << message;
      EXPECT_NE(message.find(fault.expected), std::string::npos) << message;
    }
  }
}

// Without the rows' order the logits are others: the test above would see a forgotten or doubled turn.
TEST(LlamaGgufFaults, RowsInTheWrongOrderWouldBeSeen) {
  const TextCase from("text_llama");
  GgufImage image = gguf_of(from);
  const NamedTensor* plain = nullptr;
  for (const NamedTensor& t : from.weights->tensors()) {
    if (t.name == "model.layers.1.self_attn.k_proj.weight") plain = &t;
  }
  tensor(image, "blk.1.attn_k.weight").bytes = encode_f32(to_f32(plain->view)).bytes;
  const TempFolder folder;
  const text::LlamaCheckpoint checkpoint = text::open_llama(write_text(folder.file("a.gguf"), image.bytes()));
  const auto backend = make_reference_backend();
  EXPECT_NE(all_logits(checkpoint.config, *checkpoint.weights, backend, WeightType::kF32),
            all_logits(from.config, *from.weights, backend, WeightType::kF32));
}

}  // namespace
}  // namespace volley::test
