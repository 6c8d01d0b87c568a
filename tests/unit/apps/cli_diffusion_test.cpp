// volley text with models that fill hidden places.
#include <algorithm>
#include <sstream>
#include <tuple>

#include "tests/unit/apps/cli_text_fixture.h"

namespace volley::test {
namespace {

class CliDiffusion : public CliText {};

TEST_F(CliDiffusion, DiffusionModelsFillBlocks) {
  write_toy_llada_folder(box_.file("masker"));
  const auto masker = [](std::vector<std::string> more) {
    more.insert(more.begin(), {"text", "-m", "masker", "--max-tokens", "24", "-t", "1", "Hello"});
    return more;
  };
  const CommandResult plain = volley(masker({}));
  EXPECT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_NE(plain.err.find("diffusion:block_length=32,cache=off,"), std::string::npos) << plain.err;
  EXPECT_NE(plain.err.find("(own model), greedy"), std::string::npos) << plain.err;
  EXPECT_NE(plain.err.find("1.00 tokens and "), std::string::npos) << "one token a forward: " << plain.err;
  EXPECT_EQ(plain.err.find("; prompt "), std::string::npos) << "the prompt has no forward of its own";
  const auto answer = json_of(masker({}), "volley.text.1.json", 0)["answers"][0];
  std::string expected = answer["text"];
  if (!expected.ends_with('\n')) expected += '\n';
  EXPECT_EQ(plain.out, expected);

  // The flags are the method's options.
  const std::vector<std::string> flags{"--steps", "6",    "--block-length", "8",
                                       "--cache", "dual", "--remasking",    "margin"};
  const auto made = json_of(masker(flags), "volley.text.1.json", 0);
  EXPECT_EQ(made["request"]["decoder"],
            "diffusion:block_length=8,cache=dual,factor=off,remasking=margin,second_forward=needed,steps=6,"
            "threshold=off");
  EXPECT_EQ(made["request"]["temperature"], 0.0);
  EXPECT_EQ(made["statistics"]["forwards"], 6);
  EXPECT_EQ(json_of(masker({"--decoder", "diffusion:steps=6,block_length=8,cache=dual,remasking=margin"}),
                    "volley.text.1.json", 0)["answers"][0]["tokens"],
            made["answers"][0]["tokens"]);
  const auto sampled = [&](const char* seed) {
    return volley(masker({"--temperature", "1.5", "--threshold", "0.1", "-s", seed})).out;
  };
  EXPECT_EQ(sampled("1"), sampled("1"));
  EXPECT_NE(sampled("1"), sampled("2"));

  // Tokens come out of order in the events, in order in the text, with the colours of their steps.
  EXPECT_EQ(volley(masker({"--events", "e.jsonl", "--show-accept", "-o", "x.html"})).exit_code, 0);
  std::istringstream lines(read_text(path("e.jsonl")));
  std::vector<int> positions;
  std::string told;
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    EXPECT_EQ(schema_fault(event, "volley.event.1.json"), "");
    if (event["event"] == "text") told += event["text"];
    if (event["event"] != "step") continue;
    for (const int position : event["positions"]) positions.push_back(position);
  }
  EXPECT_EQ(told, answer["text"]);
  EXPECT_FALSE(std::ranges::is_sorted(positions));
  EXPECT_NE(read_text(path("x.html")).find("title=\"step 0: "), std::string::npos);

  expect_failure(volley(masker({"--check"})), 2, "promises no sequential tokens");
  expect_failure(volley(masker({"--decoder", "lookup"})), 2, "this model's text comes from diffusion");
  expect_failure(volley(masker({"--steps", "2", "--block-length", "8"})), 2,
                 "steps=2 for 3 blocks of 8 tokens: expected at least one a block");
  expect_failure(volley(masker({"--threshold", "0.9", "--steps", "24"})), 2, "threshold and steps");
  const auto formed = json_of(masker({"--regex", "(yes|no)", "--cache", "dual"}), "volley.text.1.json", 0);
  EXPECT_TRUE(formed["answers"][0]["text"] == "yes" || formed["answers"][0]["text"] == "no") << formed;
  EXPECT_EQ(formed["answers"][0]["matches"], true);
  const auto data = json_of(masker({"--json-schema", R"({"type":"array","items":{"type":"boolean"}})"}),
                            "volley.text.1.json", 0);
  EXPECT_TRUE(nlohmann::json::parse(data["answers"][0]["text"].get<std::string>()).is_array()) << data;
  const CommandResult short_of = volley(masker({"--regex", "0{200}"}));
  expect_failure(short_of, 2, "constraint: needs at least ");
  const auto guided = json_of(masker({"--cfg-scale", "2"}), "volley.text.1.json", 0);
  EXPECT_NE(guided["answers"][0]["tokens"], answer["tokens"]);
  expect_failure(text({"Hello", "--cfg-scale", "2"}), 2, "--cfg-scale 2: model talker is no diffusion model");
  expect_failure(text({"Hello", "--steps", "8"}), 2, "--steps 8: decoder lookup has no such option");
  EXPECT_NE(volley({"models", "info", "masker"}).out.find("llada"), std::string::npos);
  const auto tested = json_of({"models", "selftest", "-m", "masker", "-t", "1"}, "volley.selftest.1.json");
  EXPECT_EQ(tested["runs"][0]["transformer"], "llada");
  EXPECT_EQ(tested["runs"][0]["tokens"], 16);
  EXPECT_EQ(volley({"models", "selftest", "-m", "talker", "-t", "1"}).out, "talker: fine\n");
}

TEST_F(CliDiffusion, BlocksAndWindowsAreFilled) {
  write_toy_block_folder(box_.file("blocks"), text::ModelKind::kBlockDiffusion);
  write_toy_block_folder(box_.file("windows"), text::ModelKind::kSequentialDiffusion);
  const auto with = [](const char* model, std::vector<std::string> more) {
    more.insert(more.begin(), {"text", "-m", model, "--max-tokens", "24", "-t", "1", "Hello"});
    return more;
  };
  const CommandResult plain = volley(with("blocks", {}));
  EXPECT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_NE(plain.err.find("block-diffusion:cache=off,sub_block=8,threshold=off (own model), greedy"),
            std::string::npos)
      << plain.err;
  EXPECT_NE(plain.err.find("; prompt "), std::string::npos) << plain.err;
  for (const auto& [model, flags, decoder] :
       std::vector<std::tuple<const char*, std::vector<std::string>, const char*>>{
           {"blocks",
            {"--threshold", "0.01", "--cache", "dual"},
            "block-diffusion:cache=dual,sub_block=8,threshold=0.01"},
           {"windows",
            {"--threshold", "0.01"},
            "sequential-diffusion:confidence=probability,threshold=0.01"}}) {
    const auto made = json_of(with(model, flags), "volley.text.1.json", 0);
    EXPECT_EQ(made["request"]["decoder"], decoder);
    EXPECT_LT(made["statistics"]["forwards"], std::ssize(made["answers"][0]["tokens"]));
    EXPECT_EQ(json_of(with(model, {"--decoder", decoder}), "volley.text.1.json", 0)["answers"][0]["tokens"],
              made["answers"][0]["tokens"]);
  }
  expect_failure(volley(with("blocks", {"--check"})), 2, "promises no sequential tokens");
  expect_failure(volley(with("blocks", {"--cache", "prefix"})), 2, "cache=prefix: expected off or dual");
  expect_failure(volley(with("windows", {"--cache", "dual"})), 2,
                 "--cache dual: decoder sequential-diffusion has no such option");
  expect_failure(volley(with("windows", {"--decoder", "lookup"})), 2,
                 "this model's text comes from sequential-diffusion");
  expect_failure(volley(with("windows", {"--cfg-scale", "2"})), 2,
                 "--cfg-scale 2: model windows was trained without hidden prompts");
  for (const auto& [model, decoder] :
       {std::pair{"blocks", "block-diffusion"}, std::pair{"windows", "sequential-diffusion"}}) {
    const auto formed = json_of(with(model, {"--regex", "(ab|ba)+c"}), "volley.text.1.json", 0);
    EXPECT_TRUE(formed["answers"][0]["matches"]);
    EXPECT_THAT(formed["answers"][0]["text"].get<std::string>(), testing::MatchesRegex("(ab|ba)+c"));
    expect_failure(volley(with(model, {"--regex", "a{500}"})), 2,
                   "--decoder " + std::string(decoder) + ": constraint: needs at least ");
  }
  EXPECT_EQ(volley({"models", "selftest", "-m", "blocks", "-t", "1"}).out, "blocks: fine\n");
  EXPECT_EQ(volley({"models", "selftest", "-m", "windows", "-t", "1"}).out, "windows: fine\n");
}

// A plan reads no weights: what it refuses is refused before any are read.
TEST_F(CliDiffusion, DiffusionThatCannotBeIsRefusedByThePlan) {
  write_toy_llada_folder(box_.file("masker"));
  const auto plan = [this](std::vector<std::string> more) {
    more.insert(more.begin(), {"text", "-m", "masker", "--max-tokens", "24", "--dry-run"});
    return volley(more);
  };
  EXPECT_EQ(plan({"Hello", "--regex", "a+"}).exit_code, 0);
  expect_failure(plan({"Hello", "--regex", "a+", "--stop", "b"}), 2, "--stop: does not go with --regex");
  expect_failure(plan({"Hello", "--steps", "2", "--block-length", "8"}), 2,
                 "--decoder diffusion: steps=2 for 3 blocks of 8 tokens: expected at least one a block");
  EXPECT_EQ(plan({"Hello", "--steps", "3", "--block-length", "8"}).exit_code, 0);
  expect_failure(plan({"--chat", "--steps", "2", "--block-length", "8"}), 2, "steps=2 for 3 blocks");
  EXPECT_EQ(plan({"--chat", "--steps", "3", "--block-length", "8"}).exit_code, 0);
  write_text(path("p.txt"), "Hello\n");
  expect_failure(plan({"-f", "p.txt", "--steps", "2", "--block-length", "8"}), 1,
                 "p.txt:1: --decoder diffusion: ");
  expect_failure(plan({"Hello", "--threshold", "1.5"}), 2,
                 "threshold=1.5: expected off or a number from 0 to 1");
  expect_failure(plan({"Hello", "--threshold", "0.9", "--factor", "2"}), 2, "threshold and factor: ");
  // A line whose context ends before the form can is that line's failure.
  const auto line_of = [](int words) {
    std::string line = "Hello";
    for (int i = 0; i < words; ++i) line += " no";
    return line;
  };
  int fits = 1, beyond = 300;  // words
  while (beyond - fits > 1) {
    const int words = (fits + beyond) / 2;
    (plan({line_of(words)}).exit_code == 0 ? fits : beyond) = words;
  }
  const std::string long_line = line_of(fits);
  write_text(path("p.txt"), "Hello\n" + long_line + "\nSea\n");
  const CommandResult lines = volley(
      {"text", "-m", "masker", "--max-tokens", "12", "-t", "1", "-f", "p.txt", "--regex", "[a-z]{12}"});
  EXPECT_EQ(lines.exit_code, 3) << lines.err;
  EXPECT_NE(lines.err.find("p.txt:2: --decoder diffusion: constraint: needs at least "), std::string::npos);
  EXPECT_EQ(std::ranges::count(lines.out, '\n'), 2) << lines.out;
  // --max-tokens asks for 7 blocks, the context has room for one.
  const CommandResult few = volley({"text", "-m", "masker", "Hello", "--dry-run", "--steps", "1",
                                    "--max-tokens", "100000", "--block-length", "16384"});
  EXPECT_EQ(few.exit_code, 0) << few.err;
}
}  // namespace
}  // namespace volley::test
