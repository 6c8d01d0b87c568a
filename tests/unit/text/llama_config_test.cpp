// Numbers of a config.json that no model can have are refused in one line that names the key.
#include <gtest/gtest.h>

#include <string>

#include "tests/unit/text/message_of.h"
#include "text/llama.h"

namespace volley::test {
namespace {

using text::message_of;

nlohmann::json llama() {
  return {{"model_type", "llama"},          {"vocab_size", 300},      {"hidden_size", 64},
          {"intermediate_size", 160},       {"num_hidden_layers", 3}, {"num_attention_heads", 4},
          {"max_position_embeddings", 512}, {"rms_norm_eps", 1e-6}};
}

std::string refused(const std::string& key, const nlohmann::json& value) {
  nlohmann::json config = llama();
  config[key] = value;
  return message_of([&] { text::parse_llama_config(config, "config.json"); });
}

std::string refused_rope(const std::string& key, const nlohmann::json& value) {
  nlohmann::json rope = {{"rope_type", "llama3"},   {"rope_theta", 500000.0},
                         {"factor", 8.0},           {"low_freq_factor", 1.0},
                         {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 64}};
  rope[key] = value;
  return refused("rope_parameters", rope);
}

TEST(LlamaConfig, NumbersThatNoModelHasAreRefused) {
  EXPECT_EQ(text::parse_llama_config(llama(), "config.json").attention.head_width, 16);
  EXPECT_EQ(refused("rms_norm_eps", -1.0),
            "config.json: key 'rms_norm_eps': expected a number in [0.0, 1.0], found -1.0");
  EXPECT_NE(refused("rms_norm_eps", 1e300).find("'rms_norm_eps'"), std::string::npos);
  for (const double theta : {0.0, -10000.0, 1e300})
    EXPECT_NE(refused("rope_theta", theta).find("'rope_theta': expected a number in"), std::string::npos);
  // 64 values do not make 128 heads.
  EXPECT_EQ(refused("num_attention_heads", 128), "config.json: head_dim 0: expected an even width of heads");
  EXPECT_EQ(refused("head_dim", 15), "config.json: head_dim 15: expected an even width of heads");
}

TEST(LlamaConfig, RopeScalingThatIsNoneIsRefused) {
  EXPECT_EQ(refused_rope("factor", 8.0), "no error");
  for (const char* key : {"factor", "low_freq_factor", "high_freq_factor"}) {
    EXPECT_NE(refused_rope(key, 0.0).find(std::string("'") + key + "'"), std::string::npos);
  }
  EXPECT_NE(refused_rope("original_max_position_embeddings", 0).find("'original_max_position_embeddings'"),
            std::string::npos);
  EXPECT_EQ(refused_rope("high_freq_factor", 1.0),
            "config.json: high_freq_factor: expected more than low_freq_factor");
}

TEST(LlamaConfig, WordsOfTheFileStayOnOneLine) {
  EXPECT_EQ(refused("model_type", "gpt\n2"),
            "config.json: model_type 'gpt\\x0a2': expected llama, qwen2, qwen3, llada or Fast_dLLM_Qwen");
  EXPECT_EQ(refused("hidden_act", "ge\nlu"), "config.json: hidden_act 'ge\\x0alu': expected silu");
}

}  // namespace
}  // namespace volley::test
