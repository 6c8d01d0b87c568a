// The job function of text under a regular expression or schema, over models with random weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/backend/cpu/cpu_backend.h"
#include "tests/support/sanitized.h"
#include "tests/unit/io/temp_folder.h"
#include "tests/unit/text/message_of.h"
#include "tests/unit/text/schema_check.h"
#include "tests/unit/text/toy_text_model.h"
#include "text/text_job.h"

namespace volley::test {
namespace {

using nlohmann::json;
using text::ConstraintKind;
using text::Finish;
using text::message_of;
using text::TextAnswer;
using text::TextModel;
using text::TextRequest;
using text::TextResult;

class ConstrainedText : public testing::Test {
 protected:
  ConstrainedText() {
    write_toy_text_folder(folder_.file("toy"));
    write_toy_text_folder(folder_.file("other"), {.seed = 9});
  }
  TextModel load(const std::string& name = "toy") const {
    return {text::open_text_checkpoint(folder_.file(name)), {.backend = make_cpu_backend(1)}};
  }
  // `answers` prompts at temperature 1, of all tokens.
  static TextRequest request_of(ConstraintKind kind, const std::string& source, int64_t answers = 4,
                                const std::string& decoder = "sequential") {
    TextRequest request{.model = "toy",
                        .chat_format = text::ChatFormat::kChatMl,
                        .max_tokens = 200,
                        .constraint = make_text_constraint(kind, source, "test"),
                        .temperature = 1.0,
                        .top_k = 0,
                        .top_p = 1.0};
    for (int64_t i = 0; i < answers; ++i) {
      request.prompts.push_back({.messages = {{.role = "user", .content = "Say " + std::to_string(i)}},
                                 .seed = static_cast<uint64_t>(i)});
    }
    choose_decoder(decoder, request);
    return request;
  }
  TempFolder folder_;
};

const std::vector<std::pair<ConstraintKind, std::string>> kConstraints{
    {ConstraintKind::kRegex, "(yes|no|maybe)"},
    {ConstraintKind::kRegex, "[a-z]{3,12}( [a-z]{1,8}){0,6}[.!?]"},
    {ConstraintKind::kRegex, "[世界é🙂]{1,5}"},
    {ConstraintKind::kRegex, "\\d{4}-\\d\\d-\\d\\d"},
    {ConstraintKind::kJsonSchema, R"({"type":"object","properties":{"name":{"type":"string","maxLength":12},
        "age":{"type":"integer","minimum":0,"maximum":150},"tags":{"type":"array","maxItems":3,
        "items":{"enum":["red","green","a\"b"]}}},"required":["name","age"]})"},
    {ConstraintKind::kJsonSchema, R"({"anyOf":[{"type":"number"},{"type":"boolean"},{"type":"null"},
        {"type":"string","pattern":"^[A-Z]{1,3}(\\n|\")$"}]})"},
};

void expect_match(const TextRequest& request, const TextAnswer& answer) {
  const text::TextConstraint& constraint = *request.constraint;
  EXPECT_EQ(answer.matches, constraint.automaton->matches(answer.text)) << answer.text;
  if (!answer.matches) {
    EXPECT_EQ(answer.finish, Finish::kLength);
    return;
  }
  if (constraint.kind != ConstraintKind::kJsonSchema) return;
  const json schema = json::parse(constraint.source);
  json value;
  ASSERT_NO_THROW(value = json::parse(answer.text)) << answer.text;
  EXPECT_TRUE(is_valid(value, schema, schema)) << answer.text;
}

// What a constraint leaves no choice of is drafted, and costs few forwards.
TEST_F(ConstrainedText, WhatCannotBeOtherwiseTakesFewForwards) {
  const TextModel model = load();
  const std::string words = "qzjx 7391 KVWY #@~% 2846 gpfb QZXJ 5";  // nothing comes twice
  for (const float temperature : {0.0f, 1.0f}) {
    TextRequest request = request_of(ConstraintKind::kRegex, words, 2);
    request.temperature = temperature;
    const TextResult sequential = run_text({model}, request, {});
    for (const auto& [decoder, most] :
         {std::pair("lookup:length=fixed,draft=16", 4), {"tree:widths=1x1x1x1", 2}}) {
      request.decoder = {};
      choose_decoder(decoder, request);
      const TextResult result = run_text({model}, request, {});
      for (size_t i = 0; i < 2; ++i) {
        const TextAnswer &answer = result.answers[i], &plain = sequential.answers[i];
        EXPECT_EQ(answer.text, words);
        EXPECT_EQ(answer.tokens, plain.tokens) << decoder;
        EXPECT_LE(most * answer.forwards, plain.forwards) << decoder;
      }
    }
  }
}

TEST_F(ConstrainedText, AnswersMatchByEveryDecoderAndAreSequentials) {
  const TextModel model = load(), other = load("other");
  const int64_t answers = kSanitized ? 2 : 4;
  int64_t whole = 0, complete = 0, ended = 0;
  for (const auto& [kind, source] : kConstraints) {
    for (const double temperature : {0.0, 1.0}) {
      TextRequest request = request_of(kind, source, answers);
      request.temperature = temperature;
      const TextResult sequential = run_text({model}, request, {});
      ASSERT_EQ(std::ssize(sequential.answers), answers);
      for (const TextAnswer& answer : sequential.answers) {
        expect_match(request, answer);
        whole += answer.matches;
        complete += answer.finish == Finish::kComplete;
        ended += answer.finish == Finish::kEndToken;
      }
      request.check = text::Check::kYes;
      for (const char* decoder : {"lookup", "tree", "jacobi", "lookahead", "draft"}) {
        request.draft_model = decoder == std::string("draft") ? "other" : "";
        choose_decoder(decoder, request);
        const TextResult result = run_text({.model = model, .draft = &other}, request, {});
        EXPECT_TRUE(result.is_check_equal()) << decoder << " " << source;
        for (size_t i = 0; i < result.answers.size(); ++i) {
          EXPECT_EQ(result.answers[i].tokens, sequential.answers[i].tokens) << decoder << " " << source;
          EXPECT_EQ(result.answers[i].matches, sequential.answers[i].matches);
          EXPECT_EQ(result.answers[i].finish, sequential.answers[i].finish);
        }
      }
    }
  }
  if (kSanitized) return;  // too few answers to show every end
  EXPECT_GT(whole, 20);
  EXPECT_GT(complete, 5);
  EXPECT_GT(ended, 0);
}

// The promise, over many seeds: what ended by itself parses and is valid.
TEST_F(ConstrainedText, JsonAlwaysParses) {
  const TextModel model = load();
  const TextRequest request =
      request_of(ConstraintKind::kJsonSchema, kConstraints[4].second, kSanitized ? 8 : 64);
  std::set<std::string> texts;
  for (const TextAnswer& answer : run_text({model}, request, {}).answers) {
    expect_match(request, answer);
    if (answer.matches) texts.insert(answer.text);
  }
  EXPECT_GT(texts.size(), kSanitized ? 4u : 40u);
}

// Diffusion looks at the whole length before it begins: nothing is cut off.
TEST_F(ConstrainedText, DiffusionAlwaysMatches) {
  write_toy_llada_folder(folder_.file("masker"));
  const TextModel model = load("masker");
  const std::vector<std::map<std::string, std::string>> methods{
      {{"block_length", "8"}, {"threshold", "0.02"}},
      {{"block_length", "16"}, {"steps", "16"}, {"cache", "dual"}, {"remasking", "margin"}},
      {{"block_length", "32"}, {"factor", "3"}, {"cache", "prefix"}}};
  std::set<std::string> texts;
  for (const auto& [kind, source] : kConstraints) {
    for (const double temperature : {0.0, 1.0}) {
      for (size_t i = 0; i < (kSanitized ? 1 : methods.size()); ++i) {
        TextRequest request = request_of(kind, source, kSanitized ? 1 : 3);
        request.max_tokens = 64;
        request.temperature = temperature;
        request.cfg_scale = i == 1 ? 1.0 : 0.0;
        choose_decoder("auto", request, std::nullopt,
                       {.kind = text::ModelKind::kMasked, .options = methods[i]});
        for (const TextAnswer& answer : run_text({model}, request, {}).answers) {
          EXPECT_TRUE(answer.matches) << source << ": " << answer.text;
          expect_match(request, answer);
          texts.insert(answer.text);
        }
      }
    }
  }
  EXPECT_GT(texts.size(), kSanitized ? 5u : 20u);

  TextRequest request = request_of(ConstraintKind::kRegex, "0{200}", 1);
  request.max_tokens = 20;
  choose_decoder("auto", request, std::nullopt, {.kind = text::ModelKind::kMasked});
  const std::string fault = message_of([&] { run_text({model}, request, {}); });
  EXPECT_NE(fault.find("constraint: needs at least "), std::string::npos) << fault;
  EXPECT_TRUE(fault.ends_with(" tokens, the output has 20")) << fault;
}

TEST_F(ConstrainedText, AnAnswerAloneIsTheOneOfABatch) {
  const TextModel model = load();
  TextRequest request = request_of(ConstraintKind::kJsonSchema, kConstraints[4].second, 5, "lookup");
  const TextResult together = run_text({model}, request, {});
  const auto prompts = request.prompts;
  for (size_t i = 0; i < prompts.size(); ++i) {
    request.prompts = {prompts[i]};
    EXPECT_EQ(run_text({model}, request, {}).answers[0].tokens, together.answers[i].tokens);
  }
}

TEST_F(ConstrainedText, WhatIsCutOffSaysSo) {
  const TextModel model = load();
  TextRequest request = request_of(ConstraintKind::kRegex, "[a-z]{50,}", 2);
  request.max_tokens = 5;
  for (const TextAnswer& answer : run_text({model}, request, {}).answers) {
    EXPECT_FALSE(answer.matches);
    EXPECT_EQ(answer.finish, Finish::kLength);
  }
  request = request_of(ConstraintKind::kRegex, "[a-z]*", 2);
  request.max_tokens = 5;
  for (const TextAnswer& answer : run_text({model}, request, {}).answers) EXPECT_TRUE(answer.matches);
}

TEST_F(ConstrainedText, ResultsComeBackFromJson) {
  const TextModel model = load();
  for (const auto& [kind, source] : kConstraints) {
    const TextResult result = run_text({model}, request_of(kind, source, 2), {});
    const json written = text::to_json(result);
    EXPECT_TRUE(written["answers"][0].contains("matches"));
    const TextResult again = text::read_text_result(written, "again");
    EXPECT_EQ(text::to_json(again), written);
    EXPECT_EQ(again.answers, result.answers);
    EXPECT_EQ(again.request.constraint->source, source);
    json broken = written;
    broken["request"]["regex"] = "(";
    broken["request"].erase("json_schema");
    EXPECT_EQ(message_of([&] { text::read_text_result(broken, "file"); }),
              "file: request: key 'regex': character 1: '(' without ')'");
    broken = written;
    broken["request"]["stops"] = {"x"};
    EXPECT_EQ(message_of([&] { text::read_text_result(broken, "file"); }),
              "file: request: key 'stops': does not go with a regex or schema");
  }
}

}  // namespace
}  // namespace volley::test
