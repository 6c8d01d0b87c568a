// Text of models that fill blocks (Fast-dLLM v2) and windows (SDLM): their configs, their answers.
#include <gtest/gtest.h>

#include "core/backend/cpu/cpu_backend.h"
#include "core/base/error.h"
#include "tests/unit/io/temp_folder.h"
#include "tests/unit/text/message_of.h"
#include "tests/unit/text/toy_text_model.h"
#include "text/selftest.h"
#include "text/text_job.h"

namespace volley::test {
namespace {

using text::message_of;
using text::ModelKind;
using text::TextAnswer;
using text::TextModel;
using text::TextRequest;

constexpr ModelKind kKinds[] = {ModelKind::kBlockDiffusion, ModelKind::kSequentialDiffusion};

class BlockDiffusionText : public testing::Test {
 protected:
  std::string folder(ModelKind kind) const {
    return box_.file(kind == ModelKind::kBlockDiffusion ? "blocks" : "windows");
  }
  void SetUp() override {
    for (const ModelKind kind : kKinds) write_toy_block_folder(folder(kind), kind);
  }
  TextModel load(ModelKind kind) const {
    return {text::open_text_checkpoint(folder(kind)), {.backend = make_cpu_backend(1)}};
  }
  TextRequest request_of(ModelKind kind, const std::map<std::string, std::string>& options,
                         double temperature = 0.0) const {
    TextRequest request{.model = "toy",
                        .chat_format = text::ChatFormat::kChatMl,
                        .max_tokens = 30,
                        .temperature = temperature};
    for (const char* words : {"What is the sea?", "Hello", "1 2 3 1 2 3 1 2 3", "Grüße, 世界 🙂"}) {
      request.prompts.push_back({.messages = {{.role = "user", .content = words}},
                                 .seed = static_cast<uint64_t>(request.prompts.size())});
    }
    choose_decoder("auto", request, std::nullopt, {.kind = kind, .options = options});
    return request;
  }
  // What is wrong with the config when `key` is `value`; null takes it away.
  std::string refused(ModelKind kind, const std::string& key, const nlohmann::json& value) const {
    nlohmann::json config = read_json_file(folder(kind) + "/config.json");
    config[key] = value;
    if (value.is_null()) config.erase(key);
    return message_of([&] { text::parse_llama_config(config, "config.json"); });
  }

  TempFolder box_;
};

TEST_F(BlockDiffusionText, ConfigsSayWhatIsFilled) {
  const auto blocks = text::open_text_checkpoint(folder(ModelKind::kBlockDiffusion));
  EXPECT_EQ(blocks.kind(), ModelKind::kBlockDiffusion);
  EXPECT_EQ(blocks.llama.config.mask_block, 8);
  EXPECT_EQ(blocks.llama.config.mask_token, blocks.llama.config.vocab_size - 1);
  EXPECT_TRUE(blocks.llama.config.attention_bias);
  const auto windows = text::open_text_checkpoint(folder(ModelKind::kSequentialDiffusion));
  EXPECT_EQ(windows.kind(), ModelKind::kSequentialDiffusion);
  EXPECT_EQ(windows.llama.config.mask_block, 4);
  // The published file of Fast-dLLM v2 names no mask; its vocabulary has one.
  nlohmann::json config = read_json_file(folder(ModelKind::kBlockDiffusion) + "/config.json");
  config.erase("mask_token_id");
  config["vocab_size"] = 151936;
  EXPECT_EQ(text::parse_llama_config(config, "config.json").mask_token, 151665);
  // Qwen 2 without a mask is what it was.
  config = read_json_file(folder(ModelKind::kSequentialDiffusion) + "/config.json");
  config.erase("text_mask_token_id");
  EXPECT_EQ(text::parse_llama_config(config, "config.json").kind, ModelKind::kCausal);
}

TEST_F(BlockDiffusionText, ConfigsThatCannotBeAreOneLine) {
  const ModelKind blocks = ModelKind::kBlockDiffusion, windows = ModelKind::kSequentialDiffusion;
  EXPECT_NE(refused(blocks, "mask_token_id", nullptr).find("mask_token_id"), std::string::npos);
  EXPECT_NE(refused(blocks, "mask_token_id", 1 << 20).find("mask_token_id"), std::string::npos);
  EXPECT_NE(refused(blocks, "bd_size", nullptr).find("bd_size"), std::string::npos);
  EXPECT_NE(refused(blocks, "bd_size", 0).find("bd_size"), std::string::npos);
  EXPECT_NE(refused(windows, "text_mask_token_id", -1).find("text_mask_token_id"), std::string::npos);
  EXPECT_NE(refused(windows, "block_size", nullptr).find("block_size"), std::string::npos);
  EXPECT_NE(refused(windows, "block_size", 1000).find("block_size"), std::string::npos);
  EXPECT_EQ(refused(windows, "causal_attn", true), "config.json: causal_attn is not supported");
}

TEST_F(BlockDiffusionText, ABatchIsItsSinglesAndForwardsAreFewer) {
  for (const ModelKind kind : kKinds) {
    const TextModel model = load(kind);
    for (const double temperature : {0.0, 1.3}) {
      const TextRequest request = request_of(kind, {{"threshold", "0.01"}}, temperature);
      const auto together = run_text({model}, request, {});
      ASSERT_EQ(together.answers.size(), request.prompts.size());
      int64_t tokens = 0, forwards = 0;
      for (size_t i = 0; i < request.prompts.size(); ++i) {
        TextRequest one = request;
        one.prompts = {request.prompts[i]};
        const TextAnswer alone = run_text({model}, one, {}).answers[0];
        EXPECT_EQ(alone.tokens, together.answers[i].tokens);
        EXPECT_EQ(alone.text, together.answers[i].text);
        tokens += std::ssize(alone.tokens);
        forwards += alone.forwards;
      }
      EXPECT_LT(forwards, tokens) << "some forwards give several tokens";
    }
  }
}

// A conversation's turns are answered as new prompts are, whatever the cache keeps of the last one.
TEST_F(BlockDiffusionText, KeptBeginningsChangeNothing) {
  write_toy_block_folder(folder(ModelKind::kSequentialDiffusion), ModelKind::kSequentialDiffusion,
                         {.context = 1024});
  const TextModel model = load(ModelKind::kSequentialDiffusion);
  TextRequest request = request_of(ModelKind::kSequentialDiffusion, {{"threshold", "0.05"}});
  std::string words = "Hello";
  for (int i = 0; i < 150; ++i) words += " 1 2";
  request.prompts = {{.messages = {{.role = "user", .content = words}}}};
  text::TextRunner runner({model});
  const auto first = runner.run(request, {}, 1);
  const auto again = runner.run(request, {}, 1);
  EXPECT_GE(again.statistics.prompt_rows_kept, 256);
  EXPECT_EQ(again.answers[0].tokens, first.answers[0].tokens);
}

TEST_F(BlockDiffusionText, MethodsAndModelsFitEachOther) {
  TextRequest request;
  const auto choose = [&](const std::string& decoder, ModelKind kind,
                          const std::map<std::string, std::string>& options = {}) {
    return message_of(
        [&] { choose_decoder(decoder, request, std::nullopt, {.kind = kind, .options = options}); });
  };
  EXPECT_EQ(choose("auto", ModelKind::kBlockDiffusion, {{"cache", "dual"}}), "no error");
  EXPECT_EQ(decoder_text(request.decoder), "block-diffusion:cache=dual,sub_block=8,threshold=off");
  EXPECT_EQ(choose("auto", ModelKind::kSequentialDiffusion), "no error");
  EXPECT_EQ(decoder_text(request.decoder), "sequential-diffusion:confidence=probability,threshold=0.9");
  EXPECT_EQ(choose("diffusion", ModelKind::kBlockDiffusion),
            "--decoder diffusion: needs a masked diffusion model (LLaDA); this model's text comes from "
            "block-diffusion");
  EXPECT_EQ(choose("sequential", ModelKind::kSequentialDiffusion),
            "--decoder sequential: needs a causal model; this model's text comes from sequential-diffusion");
  EXPECT_EQ(
      choose("block-diffusion", ModelKind::kMasked),
      "--decoder block-diffusion: needs a block diffusion model (Fast-dLLM v2); this model's text comes "
      "from diffusion");
  EXPECT_EQ(choose("auto", ModelKind::kBlockDiffusion, {{"steps", "4"}}),
            "--steps 4: decoder block-diffusion has no such option; diffusion has");
  request.constraint = make_text_constraint(text::ConstraintKind::kRegex, "a+", "--regex");
  EXPECT_EQ(choose("auto", ModelKind::kBlockDiffusion), "no error");
  request.constraint.reset();
  request.context_shift.emplace();
  EXPECT_NE(choose("auto", ModelKind::kSequentialDiffusion).find("--context-shift: "), std::string::npos);
}

TEST_F(BlockDiffusionText, SelftestsRunThem) {
  for (const ModelKind kind : kKinds) {
    const auto report = run_selftest(load(kind), {});
    EXPECT_EQ(report.fault, "");
    EXPECT_EQ(report.tokens, 16);
  }
}

}  // namespace
}  // namespace volley::test
