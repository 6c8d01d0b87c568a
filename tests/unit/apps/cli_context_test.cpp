// volley text beyond the model's context.
#include <sstream>

#include "tests/unit/apps/cli_text_fixture.h"

namespace volley::test {
namespace {

class CliContext : public CliText {
 protected:
  CliContext() { write_toy_text_folder(box_.file("endless"), {.is_endless = true}); }

  // Longer than the context of 256.
  static std::vector<std::string> longer(std::vector<std::string> more) {
    more.insert(more.begin(), {"text", "-m", "endless", "--max-tokens", "600", "-t", "1", "--temperature",
                               "0", "--context-shift"});
    return more;
  }
};

TEST_F(CliContext, AnswersGoOnWhenItIsFull) {
  const CommandResult plain = volley(longer({"Hello", "--decoder", "sequential"}));
  EXPECT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_NE(plain.err.find("the model's context was full "), std::string::npos) << plain.err;
  EXPECT_NE(plain.err.find(", context shift, at most 600 tokens"), std::string::npos) << plain.err;
  EXPECT_NE(plain.err.find(" 1.00 tokens and 1.00 rows a forward"), std::string::npos) << plain.err;
  for (const char* decoder : {"auto", "lookup:pool=4096", "tree", "jacobi", "lookahead"}) {
    const CommandResult same = volley(longer({"Hello", "--decoder", decoder, "--check"}));
    EXPECT_EQ(same.exit_code, 0) << same.err;
    EXPECT_EQ(same.out, plain.out) << decoder;
    EXPECT_NE(same.err.find("600 of 600 tokens equal"), std::string::npos) << same.err;
  }
  const auto result = json_of(longer({"Hello"}), "volley.text.1.json", 0);
  EXPECT_EQ(result["request"]["context_shift"], nlohmann::json::object());
  EXPECT_EQ(result["answers"][0]["finish"], "length");
  EXPECT_EQ(result["answers"][0]["prompt_dropped"], 0);
  EXPECT_GE(result["answers"][0]["shifts"], 3);
  EXPECT_EQ(json_of(longer({"Hello", "--keep", "7"}), "volley.text.1.json", 0)["request"]["context_shift"],
            (nlohmann::json{{"keep", 7}}));
  EXPECT_NE(volley(longer({"Hello", "--keep", "0"})).out, plain.out);
  EXPECT_FALSE(json({"Hello"})["answers"][0].contains("shifts"));
}

TEST_F(CliContext, EventsAndColoursAreOfTheWholeAnswer) {
  EXPECT_EQ(volley(longer({"Hello", "--events", "e.jsonl", "--check"})).exit_code, 0);
  std::istringstream lines(read_text(path("e.jsonl")));
  std::string told;
  int64_t tokens = 0, shifts = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    EXPECT_EQ(schema_fault(event, "volley.event.1.json"), "") << line;
    if (event["event"] == "text") told += event["text"];
    if (event["event"] == "step") {
      for (const int64_t position : event["positions"]) EXPECT_EQ(position, tokens++);
      EXPECT_EQ(event["done"], tokens);
    }
    if (event["event"] != "shift") continue;
    ++shifts;
    EXPECT_EQ(event["done"], tokens);
    EXPECT_GT(event["dropped"], 100);
  }
  const auto answer = json_of(longer({"Hello"}), "volley.text.1.json", 0)["answers"][0];
  EXPECT_EQ(told, answer["text"]);
  EXPECT_EQ(tokens, 600);
  EXPECT_EQ(shifts, answer["shifts"]);
  EXPECT_EQ(volley(longer({"Hello", "--decoder", "sequential", "--show-accept", "-o", "x.html"})).exit_code,
            0);
  EXPECT_NE(read_text(path("x.html")).find("title=\"step 500: "), std::string::npos);
}

TEST_F(CliContext, LongPromptsAndConversationsAreAnswered) {
  std::string much;
  for (int i = 0; i < 300; ++i) much += "no ";
  const CommandResult result = volley(longer({much, "--check"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("the prompt was too long for the model's context: "), std::string::npos)
      << result.err;
  write_text(path("p.txt"), "Hello\n" + much + "\nSea\n");
  const auto file = json_of(longer({"-f", "p.txt"}), "volley.text.1.json", 0);
  ASSERT_EQ(file["answers"].size(), 3u);
  EXPECT_GT(file["answers"][1]["prompt_dropped"], 0);
  Command run = command(longer({"--chat", "--json", "--system", "Be brief.", "--check"}));
  run.input = "Hello\n" + much + "\nSea\n";
  const CommandResult talk = run_command(run);
  EXPECT_EQ(talk.exit_code, 0) << talk.err;
  const auto turns = parse_json(talk.out).value();
  EXPECT_EQ(schema_fault(turns, "volley.text.1.json"), "");
  ASSERT_EQ(turns["turns"].size(), 3u);
  EXPECT_GT(turns["turns"][2]["answers"][0]["prompt_dropped"], 500);
}

TEST_F(CliContext, FormsGoOn) {
  const CommandResult result = volley({"text", "-m", "talker", "--max-tokens", "3000", "-t", "1",
                                       "--context-shift", "Hello", "--regex", "(ab ){400}end"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out.size(), 1204u);
  EXPECT_NE(result.err.find("context was full"), std::string::npos) << result.err;
}

TEST_F(CliContext, WhatCannotBeMeantIsRefused) {
  expect_failure(text({"Hello", "--keep", "3"}), 2, "--keep 3: goes with --context-shift only");
  expect_failure(volley(longer({"Hello", "--keep", "-2"})), 2, "--keep -2");
  std::string much;
  for (int i = 0; i < 300; ++i) much += "no ";
  expect_failure(volley(longer({much, "--keep", "-1"})), 2,
                 "--keep of at most 252 leaves room for an answer");
  write_toy_llada_folder(box_.file("masker"));
  expect_failure(
      volley({"text", "-m", "masker", "--context-shift", "Hello"}), 2,
      "--context-shift: model masker is a diffusion model, whose answers end where its context does");
}

}  // namespace
}  // namespace volley::test
