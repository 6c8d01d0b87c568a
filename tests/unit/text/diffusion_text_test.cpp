// Text of a masked diffusion model (LLaDA): its config, its prompts, its answers.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "core/backend/cpu/cpu_backend.h"
#include "core/base/error.h"
#include "tests/unit/io/temp_folder.h"
#include "tests/unit/text/message_of.h"
#include "tests/unit/text/toy_text_model.h"
#include "text/text_job.h"
#include "text/tokenizer/streaming_decoder.h"

namespace volley::test {
namespace {

using text::Finish;
using text::message_of;
using text::ModelKind;
using text::TextAnswer;
using text::TextModel;
using text::TextPiece;
using text::TextRequest;
using text::TextResult;

class Recorder : public text::TextObserver {
 public:
  void on_step(const StepEvent& event) override {
    for (const int32_t position : event.positions) steps[event.generation][position] = event.step;
  }
  void on_piece(const TextPiece& piece) override { pieces[piece.index].push_back(piece); }

  std::map<int64_t, std::map<int64_t, int64_t>> steps;  // of each token, by answer and position
  std::map<int64_t, std::vector<TextPiece>> pieces;
};

class DiffusionText : public testing::Test {
 protected:
  DiffusionText() { write_toy_llada_folder(folder_.file("masker")); }

  TextModel load() const {
    return {text::open_text_checkpoint(folder_.file("masker")), {.backend = make_cpu_backend(1)}};
  }

  static TextRequest request_of(const std::map<std::string, std::string>& options, double temperature = 0.0) {
    TextRequest request{.model = "masker",
                        .chat_format = text::ChatFormat::kChatMl,
                        .max_tokens = 40,
                        .temperature = temperature};
    for (const char* words : {"What is the sea?", "Hello", "1 2 3 1 2 3 1 2 3", "Grüße, 世界 🙂"}) {
      request.prompts.push_back({.messages = {{.role = "user", .content = words}},
                                 .seed = static_cast<uint64_t>(request.prompts.size())});
    }
    choose_decoder("auto", request, std::nullopt, {.kind = ModelKind::kMasked, .options = options});
    return request;
  }

  // config.json with one key changed; null takes it away.
  nlohmann::json config_with(const std::string& key, const nlohmann::json& value) const {
    nlohmann::json config = read_json_file(folder_.file("masker") + "/config.json");
    config[key] = value;
    if (value.is_null()) config.erase(key);
    return config;
  }

  TempFolder folder_;
};

const std::vector<std::map<std::string, std::string>> kOptions{
    {{"block_length", "16"}},
    {{"block_length", "16"}, {"steps", "9"}, {"cache", "prefix"}},
    {{"block_length", "8"}, {"threshold", "0.2"}, {"cache", "dual"}},
    {{"threshold", "3"}, {"remasking", "entropy"}}};

TEST_F(DiffusionText, TheStreamIsTheTextInOrderAndKnowsItsSteps) {
  const TextModel model = load();
  for (const auto& options : kOptions) {
    for (const double temperature : {0.0, 1.0}) {
      Recorder recorder;
      const TextRequest request = request_of(options, temperature);
      const TextResult result = run_text({model}, request, {.observer = &recorder});
      ASSERT_EQ(result.answers.size(), 4u);
      int64_t out_of_order = 0;
      for (const TextAnswer& answer : result.answers) {
        std::string streamed;
        int64_t position = 0;
        for (const TextPiece& piece : recorder.pieces[answer.index]) {
          streamed += piece.text;
          if (piece.token < 0) continue;
          EXPECT_EQ(piece.position, position++);
          EXPECT_EQ(piece.token, answer.tokens[static_cast<size_t>(piece.position)]);
          EXPECT_EQ(piece.step, recorder.steps[answer.index][piece.position]);
          const auto next = recorder.steps[answer.index].find(piece.position + 1);
          out_of_order += next != recorder.steps[answer.index].end() && next->second < piece.step;
        }
        EXPECT_EQ(streamed, answer.text);
        EXPECT_EQ(position, std::ssize(answer.tokens));
        text::StreamingDecoder decoder(model.checkpoint().tokenizer);
        std::string expected;
        for (const int32_t token : answer.tokens) expected += decoder.push(token);
        EXPECT_EQ(expected, answer.text);  // without bytes of a character that none completed
        EXPECT_EQ(answer.finish, answer.tokens.size() == 40 ? Finish::kLength : Finish::kEndToken);
      }
      EXPECT_GT(out_of_order, 0);
      EXPECT_EQ(result.forward_tokens(), result.tokens()) << "the prompt has no forward of its own";
      EXPECT_EQ(result.statistics.prompt_forwards, 0);
    }
  }
}

TEST_F(DiffusionText, ABatchIsItsSingles) {
  const TextModel model = load();
  for (const auto& options : kOptions) {
    const TextRequest request = request_of(options, 0.8);
    const TextResult together = run_text({model}, request, {});
    const TextResult singles = run_text({model}, request, {}, 1);
    EXPECT_EQ(together.answers, singles.answers);
    const nlohmann::json json = to_json(together);
    EXPECT_EQ(text::read_text_result(json, "file").answers, together.answers);
    EXPECT_EQ(json["request"]["decoder_class"], "own model");
  }
}

TEST_F(DiffusionText, GuidanceLeadsAwayFromTheHiddenPrompt) {
  const TextModel model = load();
  for (const auto& options : kOptions) {
    TextRequest request = request_of(options, 0.8);
    const TextResult plain = run_text({model}, request, {});
    request.cfg_scale = 1.5;
    const TextResult guided = run_text({model}, request, {});
    EXPECT_NE(guided.answers[0].tokens, plain.answers[0].tokens);
    EXPECT_EQ(run_text({model}, request, {}, 1).answers, guided.answers);
    EXPECT_EQ(text::read_text_result(to_json(guided), "file").request.cfg_scale, 1.5);
    EXPECT_FALSE(to_json(plain)["request"].contains("cfg_scale"));
  }
}

TEST_F(DiffusionText, StopTextsCutTheAnswer) {
  const TextModel model = load();
  TextRequest request = request_of({{"block_length", "16"}});
  request.prompts.resize(1);
  const TextAnswer whole = run_text({model}, request, {}).answers[0];
  ASSERT_GT(whole.text.size(), 12u);
  size_t begin = 6;
  while ((static_cast<unsigned char>(whole.text[begin]) & 0xc0) == 0x80) ++begin;
  size_t end = begin + 3;
  while (end < whole.text.size() && (static_cast<unsigned char>(whole.text[end]) & 0xc0) == 0x80) ++end;
  request.stops = {whole.text.substr(begin, end - begin)};
  const TextAnswer cut = run_text({model}, request, {}).answers[0];
  EXPECT_EQ(cut.finish, Finish::kStopText);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(request.stops[0])));
  EXPECT_LT(cut.forwards, whole.forwards);
}

TEST_F(DiffusionText, TheContextHoldsPromptAndAnswer) {
  const TextModel model = load();
  TextRequest request = request_of({});
  request.max_tokens = 1000;
  request.prompts.resize(1);
  request.stops.clear();
  const TextAnswer answer = run_text({model}, request, {}).answers[0];
  EXPECT_LE(answer.prompt_tokens + std::ssize(answer.tokens), kToyContext);
  if (answer.finish != Finish::kEndToken) {
    EXPECT_EQ(answer.finish, Finish::kContext);
  }
}

TEST_F(DiffusionText, APromptMayNotHoldTheMask) {
  const std::string folder = folder_.file("masker");
  write_text(folder + "/config.json", config_with("mask_token_id", 0).dump());
  const text::TextCheckpoint checkpoint = text::open_text_checkpoint(folder);
  const TextRequest request = request_of({});
  const text::TextPrompt prompt{.messages = {{.role = "user", .content = "What is <|endoftext|> to you?"}}};
  EXPECT_NE(message_of([&] {
              encode_prompt(checkpoint, request, prompt);
            }).find("holds the model's mask token, '<|endoftext|>'"),
            std::string::npos)
      << message_of([&] { encode_prompt(checkpoint, request, prompt); });
}

TEST_F(DiffusionText, MethodsAndModelsFitEachOther) {
  TextRequest request;
  const auto choose = [&](const std::string& decoder, ModelKind kind,
                          const std::map<std::string, std::string>& options = {}) {
    return message_of(
        [&] { choose_decoder(decoder, request, std::nullopt, {.kind = kind, .options = options}); });
  };
  for (const char* decoder : {"lookup", "sequential", "masked", "parallel"}) {
    EXPECT_NE(choose(decoder, ModelKind::kMasked).find("this model's text comes from diffusion"),
              std::string::npos);
  }
  EXPECT_NE(choose("diffusion", ModelKind::kCausal).find("needs a masked diffusion model (LLaDA); "),
            std::string::npos);
  EXPECT_EQ(choose("auto", ModelKind::kCausal, {{"block_length", "8"}}),
            "--block-length 8: decoder lookup has no such option; diffusion has");
  EXPECT_EQ(choose("auto", ModelKind::kCausal, {{"threshold", "0.9"}}),
            "--threshold 0.9: decoder lookup has no such option; diffusion and block-diffusion and "
            "sequential-diffusion have");
  EXPECT_EQ(choose("diffusion:steps=4", ModelKind::kMasked, {{"steps", "8"}}),
            "--steps 8: --decoder diffusion:steps=4 says it, too");
  EXPECT_EQ(choose("diffusion:steps=4", ModelKind::kMasked, {{"cache", "dual"}}), "no error");
  EXPECT_EQ(request.decoder.options.at("cache"), "dual");
  EXPECT_EQ(request.decoder.options.at("threshold"), "off") << "every option is stated";
  request.constraint = make_text_constraint(text::ConstraintKind::kJsonSchema, "{}", "schema");
  EXPECT_EQ(choose("auto", ModelKind::kMasked), "no error");
  EXPECT_EQ(choose("auto", ModelKind::kCausal), "no error");
  request.constraint.reset();
  request.check = text::Check::kYes;
  EXPECT_NE(choose("auto", ModelKind::kMasked).find("promises no sequential tokens"), std::string::npos);
}

TEST_F(DiffusionText, VariantsThatWereNotPublishedAreRefusedByName) {
  const auto refused = [&](const std::string& key, const nlohmann::json& value) {
    return message_of([&] { text::parse_llama_config(config_with(key, value), "config.json"); });
  };
  EXPECT_EQ(refused("alibi", true), "config.json: alibi true: only false is supported");
  EXPECT_EQ(refused("rope", false), "config.json: rope false: only true is supported");
  EXPECT_EQ(refused("block_type", "sequential"),
            "config.json: block_type 'sequential': only llama is supported");
  EXPECT_EQ(refused("block_type", nullptr), "config.json: block_type 'sequential': only llama is supported");
  EXPECT_EQ(refused("activation_type", "swiglu"),
            "config.json: activation_type 'swiglu': only silu is supported");
  EXPECT_EQ(refused("block_group_size", 2), "config.json: block_group_size 2: only 1 is supported");
  EXPECT_NE(refused("mask_token_id", nullptr).find("mask_token_id"), std::string::npos);
  EXPECT_NE(refused("mask_token_id", 1 << 20).find("mask_token_id"), std::string::npos);
  EXPECT_EQ(refused("n_heads", 5), "config.json: n_heads 5 does not divide d_model 32 into even widths");
  EXPECT_EQ(refused("model_type", "dream"),
            "config.json: model_type 'dream': expected llama, qwen2, qwen3, llada or Fast_dLLM_Qwen");
  // What a checkpoint may leave to defaults.
  const auto parsed = [&](const std::string& key, const nlohmann::json& value) {
    return text::parse_llama_config(config_with(key, value), "config.json");
  };
  EXPECT_EQ(parsed("mlp_hidden_size", nullptr).intermediate_size, 4 * 32);
  EXPECT_EQ(parsed("n_kv_heads", nullptr).attention.kv_heads, 2);
  EXPECT_TRUE(parsed("weight_tying", nullptr).tie_word_embeddings);
}

}  // namespace
}  // namespace volley::test
