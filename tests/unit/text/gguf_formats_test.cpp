// Whole models whose matrices are stored in each format of GGUF files.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/reference/reference_backend.h"
#include "core/io/convert.h"
#include "tests/unit/io/block_encoders.h"
#include "tests/unit/io/file_builders.h"
#include "tests/unit/io/temp_folder.h"
#include "tests/unit/text/gguf_case.h"
#include "text/llama_checkpoint.h"

namespace volley::test {
namespace {

// H = 256 values, one block of the formats with the longest, F = 512, V = 96
const char* const kConfig = R"({"model_type": "llama", "vocab_size": 96, "hidden_size": 256,
  "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 64, "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 64,
  "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "tie_word_embeddings": false})";

std::string random_floats(const Shape& shape, std::mt19937& bits) {
  // Of norms around 1, of matrices small and seldom centred: offsets of blocks differ.
  const bool is_norm = shape.rank() == 1;
  std::normal_distribution<float> noise(is_norm ? 1.0f : 0.01f, is_norm ? 0.1f : 0.05f);
  std::string bytes;
  for (int64_t i = 0; i < shape.size(); ++i) bytes += raw(noise(bits));
  return bytes;
}

std::unique_ptr<HeldWeights> random_weights() {
  std::vector<std::pair<std::string, Shape>> tensors{
      {"model.embed_tokens", {96, 256}}, {"model.norm", {256}}, {"lm_head", {96, 256}}};
  const std::string layer = "model.layers.0.";
  tensors.insert(tensors.end(), {{layer + "input_layernorm", {256}},
                                 {layer + "self_attn.q_proj", {256, 256}},
                                 {layer + "self_attn.k_proj", {128, 256}},
                                 {layer + "self_attn.v_proj", {128, 256}},
                                 {layer + "self_attn.o_proj", {256, 256}},
                                 {layer + "post_attention_layernorm", {256}},
                                 {layer + "mlp.gate_proj", {512, 256}},
                                 {layer + "mlp.up_proj", {512, 256}},
                                 {layer + "mlp.down_proj", {256, 512}}});
  std::mt19937 bits(5);
  auto weights = std::make_unique<HeldWeights>();
  for (const auto& [name, shape] : tensors)
    weights->add(name + ".weight", DType::kF32, shape, random_floats(shape, bits));
  weights->finish();
  return weights;
}

class GgufFormats : public testing::TestWithParam<const char*> {
 protected:
  text::LlamaCheckpoint open() {
    const GgufImage image = gguf_of(case_, [](const std::vector<float>& values) {
      EncodedMatrix encoded = encode_matrix(GetParam(), values);
      return Encoded{encoded.type, std::move(encoded.bytes)};
    });
    return text::open_llama(write_text(folder_.file("model.gguf"), image.bytes()));
  }

  // The case's weights with each matrix as `change` has it.
  template <typename Change>
  HeldWeights with_matrices(const Change& change) const {
    HeldWeights held;
    for (const NamedTensor& tensor : case_.weights->tensors()) {
      const std::vector<float> values = to_f32(tensor.view);
      if (tensor.view.shape.rank() == 2) {
        auto [dtype, bytes] = change(encode_matrix(GetParam(), values));
        held.add(tensor.name, dtype, tensor.view.shape, std::move(bytes));
      } else {
        held.add(tensor.name, DType::kF32, tensor.view.shape, encode_f32(values).bytes);
      }
    }
    held.finish();
    return held;
  }

  TempFolder folder_;
  TextCase case_{nlohmann::json::parse(kConfig), random_weights()};
  std::shared_ptr<const Backend> backends_[2] = {make_cpu_backend(2), make_reference_backend()};
};

// A file's format does not matter where products are of f32 or bf16: the logits are, bit for bit, those of
// the same model with the values as floats.
TEST_P(GgufFormats, LogitsAreThoseOfTheValuesAsFloats) {
  const text::LlamaCheckpoint checkpoint = open();
  const HeldWeights floats = with_matrices(
      [](const EncodedMatrix& matrix) { return std::pair(DType::kF32, encode_f32(matrix.values).bytes); });
  for (const auto& backend : backends_) {
    for (const WeightType type : {WeightType::kF32, WeightType::kBF16}) {
      SCOPED_TRACE(backend->info().name + " " + std::string(weight_type_name(type)));
      const auto expected = all_logits(case_.config, floats, backend, type);
      ASSERT_GT(std::ranges::max(expected) - std::ranges::min(expected), 0.1f);
      EXPECT_EQ(all_logits(checkpoint.config, *checkpoint.weights, backend, type), expected);
    }
  }
}

// With its blocks kept a model is, bit for bit, that of the blocks that docs/text.md names for the format:
// q4_0 and q4_1 as q4_1 of the very values, q4_k as q4_1 with scales rounded to halves, q5_0 and q8_0 as q8_0
// of the very values, q5_1, q5_k and q6_k rounded to q8_0; floats stay floats.
TEST_P(GgufFormats, KeptBlocksAreTheNamedOnes) {
  const text::LlamaCheckpoint checkpoint = open();
  const HeldWeights blocks =
      with_matrices([](const EncodedMatrix& matrix) { return std::pair(matrix.kept_type, matrix.kept); });
  for (const auto& backend : backends_) {
    for (const WeightType floats : {WeightType::kF32, WeightType::kBF16}) {
      SCOPED_TRACE(backend->info().name + " " + std::string(weight_type_name(floats)));
      const WeightStorage storage = WeightStorage::keeping_blocks(floats);
      const auto expected = all_logits(case_.config, blocks, backend, storage);
      ASSERT_GT(std::ranges::max(expected) - std::ranges::min(expected), 0.1f);
      EXPECT_EQ(all_logits(checkpoint.config, *checkpoint.weights, backend, storage), expected);
    }
  }
}

// No format's model is another's: a reader that took one for another would fail the tests above.
TEST(GgufFormatsOfOneModel, AreDifferentModels) {
  const auto weights = random_weights();
  const std::vector<float> values = to_f32(weights->tensors().front().view);
  const auto [least, greatest] = std::ranges::minmax(values);
  ASSERT_LT(greatest - least, 0.6f);
  std::vector<std::vector<float>> seen;
  for (const char* format :
       {"f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k"}) {
    seen.push_back(encode_matrix(format, values).values);
    for (size_t i = 0; i + 1 < seen.size(); ++i) EXPECT_NE(seen[i], seen.back()) << format << " " << i;
    // Rounded, but still these weights. They span less than 0.6: half of one of 15 steps is at most 0.02;
    // scales of six bits may be off by half of a 63rd, which moves the last of the steps by 0.005, and a
    // minimum by as much.
    float furthest = 0.0f;
    for (size_t i = 0; i < values.size(); ++i)
      furthest = std::max(furthest, std::abs(values[i] - seen.back()[i]));
    EXPECT_LT(furthest, 0.03f) << format;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, GgufFormats,
                         testing::Values("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k",
                                         "q5_k", "q6_k"),
                         [](const auto& format) { return std::string(format.param); });

}  // namespace
}  // namespace volley::test
