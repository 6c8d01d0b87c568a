#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/decode/session.h"
#include "core/io/convert.h"
#include "speech/whisper_encoder.h"
#include "tests/unit/models/random_models.h"

namespace volley::speech {
namespace {

using test::RandomWeights;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr DiffLlamaConfig kGrouped{.n_layer = 2,
                                   .n_embd = 24,
                                   .n_head = 6,
                                   .n_query_groups = 2,
                                   .intermediate_size = 40,
                                   .padded_vocab_size = 20,
                                   .mask_token_id = 20,
                                   .block_size = 64};

std::vector<float> logits_of(const DiffLlama& model, const std::shared_ptr<const Backend>& backend,
                             std::span<const float> memory) {
  Session session(model, backend, {.entries = 8, .memory_sequences = 1, .memory_entries = 8});
  SequenceStep step{.sequence = session.cache().create(), .visibility = {.kind = MaskKind::kFull}};
  if (!memory.empty()) step.memory = session.add_memory(memory);
  for (int32_t i = 0; i < 5; ++i) {
    step.rows.push_back({.token = i % 2 == 0 ? model.mask_token() : 3 * i, .position = model.position(i)});
    step.wanted.logits.push_back(i);
  }
  session.step({&step, 1});
  std::vector<float> logits;
  for (int64_t i = 0; i < 5; ++i) {
    const std::vector<float> row = session.logits_on_host(i);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

// A model whose heads share keys and values equals the one in which each head has its own copy.
TEST(DiffLlamaModel, SharesKeysAndValuesWithinAQueryGroup) {
  const auto backend = make_backend("cpu-reference", 1);
  const RandomWeights grouped_weights = test::diff_llama_weights(kGrouped);
  DiffLlamaConfig separate = kGrouped;
  separate.n_query_groups = 6;

  test::MemoryWeights separate_weights;
  for (const NamedTensor& tensor : grouped_weights.tensors()) {
    const std::vector<float> values = to_f32(tensor.view);
    if (!tensor.name.ends_with("attn.attn.weight")) {
      separate_weights.add(tensor.name, tensor.view.shape, values);
      continue;
    }
    // Heads of 4 rows; a group is three q, k, v.
    constexpr int64_t kHead = 4 * 24;
    std::vector<float> rows;
    for (int64_t head = 0; head < 6; ++head) {
      const int64_t group = head / 3 * 5;
      for (int64_t part : {group + head % 3, group + 3, group + 4}) {
        rows.insert(rows.end(), values.begin() + part * kHead, values.begin() + (part + 1) * kHead);
      }
    }
    separate_weights.add(tensor.name, {18 * 4, 24}, rows);
  }
  separate_weights.finish();

  const DiffLlama a(kGrouped, WeightLoader(grouped_weights, *backend, WeightType::kF32));
  const DiffLlama b(separate, WeightLoader(separate_weights, *backend, WeightType::kF32));
  EXPECT_EQ(logits_of(a, backend, {}), logits_of(b, backend, {}));
}

TEST(DiffLlamaModel, ReadsAMemoryIfItsCheckpointHasCrossAttention) {
  const auto backend = make_backend("cpu-reference", 1);
  DiffLlamaConfig config = kGrouped;
  config.n_query_groups = 6;
  config.memory_width = 10;
  const RandomWeights weights = test::diff_llama_weights(config);
  const nlohmann::json json = nlohmann::json::parse(
      R"({"padded_vocab_size": 20, "n_embd": 24, "n_layer": 2, "n_head": 6, "intermediate_size": 40})");
  const DiffLlamaConfig parsed = parse_diff_llama_config(json, weights, "c.json");
  EXPECT_EQ(parsed.memory_width, 10);
  EXPECT_EQ(parsed.mask_token_id, 20);
  const DiffLlama model(parsed, WeightLoader(weights, *backend, WeightType::kF32));
  EXPECT_EQ(model.traits().memory_layers, 2);
  std::vector<float> memory(30, 0.5f);
  const std::vector<float> one = logits_of(model, backend, memory);
  memory[12] = -1.0f;
  EXPECT_NE(one, logits_of(model, backend, memory));
  EXPECT_THAT([&] { logits_of(model, backend, {}); },
              ThrowsMessage<Error>(HasSubstr("memory: the model needs one")));
}

TEST(DiffLlamaModel, RefusesSizesItCannotRun) {
  DiffLlamaConfig config = kGrouped;
  config.memory_width = 10;
  const RandomWeights with_memory = test::diff_llama_weights(config),
                      plain = test::diff_llama_weights(kGrouped);
  const auto json = [](const char* text) { return nlohmann::json::parse(text); };
  EXPECT_THAT(
      [&] {
        parse_diff_llama_config(json(R"({"padded_vocab_size": 20, "n_embd": 24, "n_layer": 2, "n_head": 6,
                                         "n_query_groups": 2, "intermediate_size": 40})"),
                                with_memory, "c.json");
      },
      ThrowsMessage<Error>(HasSubstr("beside cross-attention")));
  EXPECT_THAT(
      [&] {
        parse_diff_llama_config(json(R"({"padded_vocab_size": 20, "n_embd": 25, "n_layer": 2, "n_head": 6,
                                         "intermediate_size": 40})"),
                                plain, "c.json");
      },
      ThrowsMessage<Error>(HasSubstr("n_embd 25")));
  EXPECT_THAT([&] { infer_diff_llama_config(plain); },
              ThrowsMessage<Error>(HasSubstr("2 layers of width 24 are no known size")));
}

constexpr WhisperConfig kSmallWhisper{.d_model = 128,
                                      .encoder_layers = 2,
                                      .encoder_attention_heads = 2,
                                      .encoder_ffn_dim = 96,
                                      .decoder_layers = 1,
                                      .decoder_attention_heads = 2,
                                      .decoder_ffn_dim = 32,
                                      .num_mel_bins = 20,
                                      .max_source_positions = 80,
                                      .max_target_positions = 8,
                                      .vocab_size = 10};

test::MemoryWeights whisper_encoder_weights(const WhisperConfig& config) {
  test::MemoryWeights weights;
  test::TestRandom random(1);
  const auto add = [&](const std::string& name, const Shape& shape) {
    weights.add("model.encoder." + name, shape, random, 0.1f);
  };
  const int64_t width = config.d_model, ffn = config.encoder_ffn_dim;
  const auto with_bias = [&](const std::string& name, const Shape& shape) {
    add(name + ".weight", shape);
    add(name + ".bias", {shape[0]});
  };
  with_bias("conv1", {width, config.num_mel_bins, 3});
  with_bias("conv2", {width, width, 3});
  add("embed_positions.weight", {config.max_source_positions, width});
  for (int64_t l = 0; l < config.encoder_layers; ++l) {
    const std::string layer = "layers." + std::to_string(l) + ".", attention = layer + "self_attn.";
    with_bias(layer + "self_attn_layer_norm", {width});
    with_bias(attention + "q_proj", {width, width});
    add(attention + "k_proj.weight", {width, width});
    with_bias(attention + "v_proj", {width, width});
    with_bias(attention + "out_proj", {width, width});
    with_bias(layer + "final_layer_norm", {width});
    with_bias(layer + "fc1", {ffn, width});
    with_bias(layer + "fc2", {width, ffn});
  }
  with_bias("layer_norm", {width});
  weights.finish();
  return weights;
}

// Bit for bit, on every device, in f32 and in bf16.
TEST(WhisperEncoderModel, ASoundIsAsItWouldBeAlone) {
  constexpr int64_t kSounds = 3, kFrames = 140;
  const test::MemoryWeights weights = whisper_encoder_weights(kSmallWhisper);
  std::vector<float> mels(static_cast<size_t>(kSounds * kSmallWhisper.num_mel_bins * kFrames));
  test::TestRandom random(2);
  for (float& value : mels) value = random.normal();
  for (const std::string& device : devices()) {
    const auto backend = make_backend(device, 2);
    for (const WeightType type : {WeightType::kF32, WeightType::kBF16}) {
      const WhisperEncoder encoder(kSmallWhisper, WeightLoader(weights, *backend, type));
      const auto encode = [&](std::span<const float> values, int64_t sounds) {
        const auto queue = backend->make_queue();
        Arena arena(*backend);
        const Tensor mel = arena.tensor({sounds, kSmallWhisper.num_mel_bins, kFrames});
        const Tensor out = arena.tensor({sounds, encoder.rows(kFrames), kSmallWhisper.d_model});
        queue->upload(values.data(), mel.data, mel.size() * 4);
        encoder.encode(*queue, arena, {.mel = mel, .out = out});
        std::vector<float> rows(static_cast<size_t>(out.size()));
        queue->download(out.data, rows.data(), out.size() * 4);
        return rows;
      };
      const std::vector<float> together = encode(mels, kSounds);
      for (int64_t n = 0; n < kSounds; ++n) {
        const size_t size = mels.size() / kSounds, made = together.size() / kSounds,
                     i = static_cast<size_t>(n);
        const std::vector<float> alone = encode(std::span(mels).subspan(i * size, size), 1);
        EXPECT_TRUE(std::ranges::equal(alone, std::span(together).subspan(i * made, made)))
            << "sound " << n << " on " << device << " with " << weight_type_name(type);
      }
    }
  }
}

TEST(WhisperConfigs, RefuseVariantsThatAreNotSupported) {
  nlohmann::json config = nlohmann::json::parse(
      R"({"model_type": "whisper", "d_model": 64, "encoder_layers": 1, "encoder_attention_heads": 4,
          "encoder_ffn_dim": 128, "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 128,
          "num_mel_bins": 80, "max_source_positions": 1500, "max_target_positions": 64, "vocab_size": 100})");
  EXPECT_EQ(parse_whisper_config(config, "c.json").d_model, 64);
  config["decoder_attention_heads"] = 5;
  EXPECT_THAT([&] { parse_whisper_config(config, "c.json"); }, ThrowsMessage<Error>(HasSubstr("5 heads")));
  config["decoder_attention_heads"] = 4;
  config["scale_embedding"] = true;
  EXPECT_THAT([&] { parse_whisper_config(config, "c.json"); },
              ThrowsMessage<Error>(HasSubstr("scale_embedding")));
  config["scale_embedding"] = false;
  config["activation_function"] = "relu";
  EXPECT_THAT([&] { parse_whisper_config(config, "c.json"); }, ThrowsMessage<Error>(HasSubstr("relu")));
}

}  // namespace
}  // namespace volley::speech
