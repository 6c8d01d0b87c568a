// volley text, from its words to its answers.
#include <signal.h>

#include <algorithm>
#include <regex>
#include <sstream>

#include "tests/unit/apps/cli_fixture.h"
#include "tests/unit/text/toy_text_model.h"

namespace volley::test {
namespace {

class CliText : public Cli {
 protected:
  CliText() { write_toy_text_folder(box_.file("talker")); }

  std::vector<std::string> words(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"text", "-m", "talker", "--max-tokens", "24", "-t", "1"});
    return arguments;
  }
  CommandResult text(std::vector<std::string> arguments) const { return volley(words(std::move(arguments))); }
  CommandResult text_of_input(std::vector<std::string> arguments, const std::string& input) const {
    Command run = command(words(std::move(arguments)));
    run.input = input;
    return run_command(run);
  }
  nlohmann::json json(std::vector<std::string> arguments, int exit_code = 0) const {
    return json_of(words(std::move(arguments)), "volley.text.1.json", exit_code);
  }
};

TEST_F(CliText, AnswersStreamToStandardOutput) {
  const CommandResult result = text({"What", "is", "the", "sea?"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const auto answer = json({"What is the sea?"})["answers"][0];
  std::string expected = answer["text"];
  if (!expected.ends_with('\n')) expected += '\n';
  EXPECT_EQ(result.out, expected);
  EXPECT_FALSE(answer["text"].get<std::string>().empty());
  ASSERT_EQ(result.error_lines().size(), 3u) << result.err;
  EXPECT_NE(result.error_lines()[0].find("temperature 0.8, top-k 40, top-p 0.95, seed 0, chat format chatml"),
            std::string::npos)
      << result.err;
  EXPECT_EQ(result.error_lines()[1], "the answer was cut off at --max-tokens 24");
  EXPECT_NE(result.error_lines()[2].find("rows a forward; prompt "), std::string::npos);
  EXPECT_EQ(text({"What is the sea?", "-q"}).err, "");
  EXPECT_NE(text({"What is the sea?", "-v"}).err.find("peak memory"), std::string::npos);
  EXPECT_GT(json({"Hello"})["statistics"]["seconds"]["load"], 0.0);
  EXPECT_EQ(result.out.find('\x1b'), std::string::npos);
}

TEST_F(CliText, JsonFollowsItsSchema) {
  const auto result = json({"Hello", "--check", "--system", "Be brief.", "--stop", "zz", "-s", "7"});
  EXPECT_EQ(result["request"]["prompts"][0]["messages"][0]["role"], "system");
  EXPECT_EQ(result["request"]["prompts"][0]["seed"], 7);
  EXPECT_EQ(result["request"]["stops"][0], "zz");
  EXPECT_EQ(result["checks"][0]["equal"], result["answers"][0]["tokens"].size());
  EXPECT_EQ(result["weights"]["model"].get<std::string>().size(), 64u);
  EXPECT_EQ(result["threads"], 1);
  const auto plan = json({"Hello", "--dry-run"});
  EXPECT_EQ(plan["request"]["max_tokens"], 24);
  EXPECT_EQ(json({"Hello", "--chat-format", "nobody"}, 2)["error"]["kind"], "usage");
  json_of({"text", "-m", "nowhere/x", "Hello"}, "volley.text.1.json", 4);
}

TEST_F(CliText, SeedsAndSamplingChangeTheAnswerAndThreadsDoNot) {
  const std::string first = text({"Hello"}).out;
  EXPECT_EQ(volley({"text", "-m", "talker", "--max-tokens", "24", "-t", "2", "Hello"}).out, first);
  EXPECT_NE(text({"Hello", "-s", "1"}).out, first);
  EXPECT_NE(text({"Hello", "--temperature", "3", "--top-k", "0", "--top-p", "1"}).out, first);
  const std::string greedy = text({"Hello", "--temperature", "0"}).out;
  EXPECT_EQ(text({"Hello", "--temperature", "0", "-s", "5"}).out, greedy);
  EXPECT_EQ(text({"Hello", "--top-k", "1"}).out, greedy);
  EXPECT_NE(text({"Hello", "--temperature", "0"}).err.find("greedy"), std::string::npos);
  EXPECT_NE(json({"Hello", "-s", "-1"})["request"]["prompts"][0]["seed"],
            json({"Hello", "-s", "-1"})["request"]["prompts"][0]["seed"]);
}

TEST_F(CliText, DecodersAgreeAndAreChecked) {
  for (const char* temperature : {"0", "0.8"}) {
    const std::string first = text({"Hello", "--temperature", temperature, "--decoder", "sequential"}).out;
    for (const char* decoder : {"auto", "lookup:draft=4", "tree", "jacobi"}) {
      const CommandResult result =
          text({"Hello", "--temperature", temperature, "--decoder", decoder, "--check", "--color", "never"});
      EXPECT_EQ(result.exit_code, 0) << result.err;
      EXPECT_EQ(result.out, first) << decoder;
      EXPECT_NE(result.err.find("24 of 24 tokens equal"), std::string::npos) << result.err;
    }
  }
}

TEST_F(CliText, EveryDecoderRunsWithADraftModelAndALongestDraft) {
  write_toy_text_folder(box_.file("small"), {.seed = 5});
  write_toy_text_gguf(path("small.gguf"), {.seed = 5});
  for (const char* temperature : {"0", "0.8"}) {
    const std::string first = text({"Hello", "--temperature", temperature, "--decoder", "sequential"}).out;
    const auto run = [&](const std::string& decoder, std::vector<std::string> more) {
      more.insert(more.begin(), {"Hello", "--temperature", temperature, "--decoder", decoder, "--draft-model",
                                 "small", "--draft-max", "3", "--color", "never"});
      return text(more);
    };
    for (const std::string decoder : {"auto", "draft", "lookahead", "lookup", "jacobi", "tree"}) {
      const CommandResult result = run(decoder, {"--check"});
      EXPECT_EQ(result.exit_code, 0) << result.err;
      EXPECT_EQ(result.out, first) << decoder;
      EXPECT_NE(result.err.find("24 of 24 tokens equal"), std::string::npos) << result.err;
      const bool drafts = decoder == "auto" || decoder == "draft";
      EXPECT_EQ(result.err.find("(same-tokens) by small, ") != std::string::npos, drafts) << result.err;
      EXPECT_EQ(result.err.find("--draft-model small: decoder " + decoder + " does not use it") !=
                    std::string::npos,
                !drafts)
          << result.err;
    }
    const CommandResult rejection = run("draft-rejection", {});
    EXPECT_EQ(rejection.exit_code, 0) << rejection.err;
    EXPECT_NE(rejection.err.find("draft-rejection:draft=3,length=schedule (same-distribution) by small"),
              std::string::npos)
        << rejection.err;
    expect_failure(run("draft-rejection", {"--check"}), 2, "--check: decoder draft-rejection");
  }
  const auto result = json({"Hello", "--draft-model", "./small.gguf", "--check"});
  EXPECT_EQ(result["request"]["decoder"], "draft:draft=16,length=adaptive");
  EXPECT_EQ(result["request"]["draft_model"], "small");
  EXPECT_GT(result["statistics"]["draft"]["forwards"], 0);
  EXPECT_EQ(json({"Hello"})["request"]["decoder"], "lookup:accept=coupled,draft=16,length=adaptive,ngram=3");
  EXPECT_EQ(json({"Hello", "--draft-max", "5"})["request"]["decoder"],
            "lookup:accept=coupled,draft=5,length=adaptive,ngram=3");
  EXPECT_EQ(json({"Hello", "--decoder", "lookup"})["request"]["decoder"],
            "lookup:accept=coupled,draft=8,length=fixed,ngram=3");
  EXPECT_EQ(result["weights"]["draft"].get<std::string>().size(), 64u);
  EXPECT_NE(result["weights"]["draft"], result["weights"]["model"]);
  EXPECT_NE(text({"Hello", "--draft-model", "small", "-v"}).err.find("draft model: "), std::string::npos);
  Command talk = command(words({"--chat", "--draft-model", "small", "--temperature", "0"}));
  talk.input = "Hello\nSea\n";
  Command alone = command(words({"--chat", "--temperature", "0"}));
  alone.input = talk.input;
  EXPECT_EQ(run_command(talk).out, run_command(alone).out);
}

TEST_F(CliText, DraftModelsThatDoNotFitAreOneLine) {
  const auto refuses = [&](std::vector<std::string> arguments, const std::string& part, int exit_code = 2) {
    arguments.insert(arguments.begin(), "Hello");
    expect_failure(text(std::move(arguments)), exit_code, part);
  };
  refuses({"--decoder", "draft"}, "--decoder draft: needs a draft model; --draft-model names one");
  refuses({"--draft-model", ""}, "--draft-model: is empty");
  refuses({"--draft-model", "nowhere/x"}, "nowhere/x", 4);
  refuses({"--draft-model", "toy"}, "config.json", 1);  // a model of pictures
  write_toy_text_folder(box_.file("wide"), {.spare_ids = 9});
  refuses({"--draft-model", "wide"}, "wide: has ");
  refuses({"--draft-model", "wide", "--dry-run"}, "a draft model needs the model's vocabulary");
  refuses({"--draft-max", "0"}, "--draft-max 0: expected a whole number from 1 to 255");
  refuses({"--draft-max", "4", "--decoder", "sequential"}, "decoder sequential drafts nothing");
  refuses({"--draft-max", "4", "--decoder", "lookup:draft=2"}, "says how long a draft may be, too");
  refuses({"--draft-max", "99", "--decoder", "lookahead"}, "--draft-max 99: --decoder lookahead: N=100");
}

// Heads with random weights, of either kind, are a file or a folder.
TEST_F(CliText, DraftHeadsAnswerAsSequentialDecoding) {
  const std::string crown = box_.file("crown");
  std::filesystem::create_directories(crown);
  write_toy_heads(path("medusa.safetensors"), text::HeadsFamily::kMedusa);
  write_toy_heads(crown + "/hydra_lm_head.safetensors", text::HeadsFamily::kHydra);
  for (const char* temperature : {"0", "0.8"}) {
    const std::string first = text({"Hello", "--temperature", temperature, "--decoder", "sequential"}).out;
    for (const std::string& heads : {std::string("./medusa.safetensors"), crown}) {
      for (const char* decoder : {"auto", "heads:confidence=0,width=2"}) {
        const CommandResult result = text({"Hello", "--temperature", temperature, "--decoder", decoder,
                                           "--heads", heads, "--check", "--color", "never"});
        EXPECT_EQ(result.exit_code, 0) << result.err;
        EXPECT_EQ(result.out, first) << decoder << " with " << heads;
        EXPECT_NE(result.err.find("24 of 24 tokens equal"), std::string::npos) << result.err;
      }
    }
  }
  const auto made = json({"Hello", "--heads", crown, "--decoder", "heads:confidence=0", "--draft-max", "2"});
  EXPECT_EQ(made["request"]["heads"], "crown");
  EXPECT_EQ(made["request"]["decoder_class"], "same-tokens");
  EXPECT_EQ(made["weights"]["heads"].get<std::string>().size(), 64u);
  EXPECT_EQ(made["statistics"]["draft"]["forwards"].get<int64_t>() > 0, true);
  EXPECT_LE(made["statistics"]["draft"]["forwards"].get<int64_t>(),
            2 * made["statistics"]["forwards"].get<int64_t>());
  EXPECT_EQ(
      json({"Hello", "--heads", crown})["request"]["decoder"],
      "heads:accept=coupled,alpha=0.09,confidence=0.3,epsilon=0.3,heads=16,length=adaptive,nodes=16,width=1");
  const auto typical = json({"Hello", "--heads", crown, "--decoder", "heads:accept=typical"});
  EXPECT_EQ(typical["request"]["decoder_class"], "lossy");
  const CommandResult detail = text({"Hello", "--heads", crown, "-v"});
  EXPECT_NE(detail.err.find("(same-tokens) by crown, "), std::string::npos) << detail.err;
  EXPECT_NE(detail.err.find("heads: "), std::string::npos) << detail.err;
  // Within a constraint, in a conversation, and beside a decoder that does not use them.
  EXPECT_EQ(text({"Hello", "--heads", crown, "--regex", "[a-z ]{5,9}"}).out,
            text({"Hello", "--decoder", "sequential", "--regex", "[a-z ]{5,9}"}).out);
  Command talk = command(words({"--chat", "--heads", crown, "--temperature", "0"}));
  talk.input = "Hello\nSea\n";
  Command alone = command(words({"--chat", "--temperature", "0"}));
  alone.input = talk.input;
  EXPECT_EQ(run_command(talk).out, run_command(alone).out);
  EXPECT_NE(text({"Hello", "--heads", crown, "--decoder", "lookup"})
                .err.find("--heads " + crown + ": decoder lookup does not use them; heads does"),
            std::string::npos);
}

TEST_F(CliText, DraftHeadsThatDoNotFitAreOneLine) {
  const auto refuses = [&](std::vector<std::string> arguments, const std::string& part, int exit_code = 2) {
    arguments.insert(arguments.begin(), "Hello");
    expect_failure(text(std::move(arguments)), exit_code, part);
  };
  write_toy_heads(path("good.safetensors"), text::HeadsFamily::kMedusa);
  write_toy_heads(path("wide.safetensors"), text::HeadsFamily::kMedusa, {.dim = 64});
  refuses({"--decoder", "heads"}, "--decoder heads: needs draft heads; --heads names them");
  refuses({"--heads", ""}, "--heads: is empty");
  refuses({"--heads", "nowhere/x"}, "nowhere/x", 4);
  refuses({"--heads", "nobody"}, "--heads 'nobody' (a path holds a slash): no such model", 4);
  refuses({"--heads", "talker"}, "holds no draft heads", 1);
  refuses({"--heads", "./wide.safetensors"}, "wide.safetensors: tensor 0.1.weight: reads rows of width 64");
  refuses({"--heads", "./wide.safetensors", "--dry-run"}, "those of model talker have 32");
  refuses({"--heads", "./good.safetensors", "--check", "--decoder", "heads:accept=typical"},
          "--check: decoder heads is of class 'lossy' and promises no sequential tokens");
  refuses({"--heads", "./good.safetensors", "--decoder", "heads:width=2,length=adaptive"}, "width=1 only");
  expect_failure(volley({"image", "--decoder", "heads", "red apple"}), 2,
                 "--decoder heads: needs a model with draft heads; pictures come from ");
  // What a file of heads is, as far as volley models info goes.
  const CommandResult info = volley({"models", "info", "./good.safetensors"});
  EXPECT_EQ(info.exit_code, 0) << info.err;
  EXPECT_NE(info.out.find("tensors      9"), std::string::npos) << info.out;
}

TEST_F(CliText, RawContinuesAndChatFormatsDiffer) {
  const auto raw = json({"--raw", "Once upon a time"});
  EXPECT_EQ(raw["request"]["prompts"][0]["text"], "Once upon a time");
  EXPECT_FALSE(raw["request"].contains("chat_format"));
  const auto chat = json({"Once upon a time"}), smol = json({"Once upon a time", "--chat-format", "smollm2"});
  EXPECT_EQ(chat["request"]["chat_format"], "chatml");
  EXPECT_LT(raw["answers"][0]["prompt_tokens"], chat["answers"][0]["prompt_tokens"]);
  EXPECT_LT(chat["answers"][0]["prompt_tokens"], smol["answers"][0]["prompt_tokens"]) << "its system message";
  write_toy_text_folder(box_.file("plain"), {.chat_template = ""});
  const CommandResult plain = volley({"text", "-m", "plain", "--max-tokens", "4", "Hello"});
  EXPECT_NE(plain.err.find("plain completion"), std::string::npos) << plain.err;
  expect_failure(volley({"text", "-m", "plain", "--system", "x", "Hello"}), 2, "has no chat format");
  expect_failure(volley({"text", "-m", "plain", "--chat"}), 2, "has no chat template");
  write_toy_text_folder(box_.file("odd"), {.chat_template = "{{ x }}"});
  expect_failure(volley({"text", "-m", "odd", "Hello"}), 2,
                 "by --chat-format, or continue plain text by --raw");
  EXPECT_EQ(volley({"text", "-m", "odd", "--raw", "--max-tokens", "4", "Hello"}).exit_code, 0);
}

TEST_F(CliText, StopTextsAreCutExactly) {
  const std::string whole = json({"Hello", "--temperature", "0"})["answers"][0]["text"];
  size_t at = whole.size() / 2;
  while ((static_cast<unsigned char>(whole[at]) & 0xc0) == 0x80) ++at;
  size_t end = at + 2;
  while (end < whole.size() && (static_cast<unsigned char>(whole[end]) & 0xc0) == 0x80) ++end;
  const std::string stop = whole.substr(at, end - at);
  const auto cut = json({"Hello", "--temperature", "0", "--stop", "never said", "--stop", stop});
  EXPECT_EQ(cut["answers"][0]["text"], whole.substr(0, whole.find(stop)));
  EXPECT_EQ(cut["answers"][0]["finish"], "stop text");
  EXPECT_EQ(text({"Hello", "--temperature", "0", "--stop", stop}).out.find(stop), std::string::npos);
}

TEST_F(CliText, AnswersMatchARegularExpression) {
  const std::string words = "(yes|no|perhaps)( indeed)?";
  const CommandResult first = text({"Hello", "--regex", words, "--decoder", "sequential"});
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_TRUE(std::regex_match(first.out, std::regex(words + "\n"))) << first.out;
  EXPECT_NE(first.err.find(", by --regex, at most 24 tokens"), std::string::npos) << first.err;
  for (const char* decoder : {"lookup", "tree", "jacobi", "lookahead"}) {
    const CommandResult same = text({"Hello", "--regex", words, "--decoder", decoder, "--check"});
    EXPECT_EQ(same.exit_code, 0) << same.err;
    EXPECT_EQ(same.out, first.out) << decoder;
  }
  write_text(path("p.txt"), "Hello\nSea\nWater\n");
  const auto result = json({"-f", "p.txt", "--regex", "[ab]{2,4}"});
  EXPECT_EQ(result["request"]["regex"], "[ab]{2,4}");
  for (const auto& answer : result["answers"]) {
    EXPECT_TRUE(std::regex_match(answer["text"].get<std::string>(), std::regex("[ab]{2,4}"))) << answer;
    EXPECT_EQ(answer["matches"], true);
  }
  EXPECT_FALSE(json({"Hello"})["answers"][0].contains("matches"));
  const CommandResult talk = text_of_input({"--chat", "--regex", "(yes|no)"}, "Hello\nSea\n");
  EXPECT_TRUE(std::regex_match(talk.out, std::regex("(yes|no)\n(yes|no)\n"))) << talk.out;
}

TEST_F(CliText, AnswersAreJsonByASchema) {
  const std::string schema =
      R"({"type":"object","properties":{"ok":{"type":"boolean"},"n":{"type":"integer","minimum":0,"maximum":99}},)"
      R"("required":["ok","n"]})";
  write_text(path("schema.json"), schema + "\n");
  for (const std::string& given : {schema, std::string("schema.json")}) {
    const CommandResult result = text({"Hello", "--json-schema", given});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const auto value = nlohmann::json::parse(result.out);
    EXPECT_TRUE(value["ok"].is_boolean());
    EXPECT_TRUE(value["n"] >= 0 && value["n"] <= 99) << value;
  }
  const auto result = json({"Hello", "--json-schema", schema, "--check"});
  EXPECT_EQ(result["request"]["json_schema"], schema);
  EXPECT_EQ(result["answers"][0]["finish"], "complete");
  EXPECT_EQ(nlohmann::json::parse(result["answers"][0]["text"].get<std::string>()).size(), 2u);
}

TEST_F(CliText, AnAnswerCutOffBeforeItMatchesIsSaid) {
  const std::vector<std::string> arguments{"Hello", "--regex", "[a-z]{600,}"};
  const CommandResult result = text(arguments);
  expect_failure(result, 3,
                 "--regex: 1 of 1 answer ended before it matched; --max-tokens or the context was too small");
  EXPECT_FALSE(result.out.empty()) << "what there is of it";
  const auto told = json(arguments, 3);
  EXPECT_EQ(told["answers"][0]["matches"], false);
  EXPECT_EQ(told["answers"][0]["finish"], "length");
}

TEST_F(CliText, ConstraintsThatCannotBeAreOneLine) {
  const auto refuses = [&](std::vector<std::string> arguments, const std::string& part, int exit_code = 2) {
    arguments.insert(arguments.begin(), "Hello");
    expect_failure(text(std::move(arguments)), exit_code, part);
  };
  refuses({"--regex", "a(b"}, "--regex: character 2: '(' without ')'");
  refuses({"--regex", "a(?=b)"}, "--regex: character 2: lookaround '(?=' is not supported");
  refuses({"--regex", "(a{1000}){2000}", "--dry-run"}, "--regex: is too large: more than ");
  refuses({"--regex", "a", "--json-schema", "{}"}, "--regex: does not go with --json-schema");
  refuses({"--regex", "a", "--stop", "b"},
          "--stop: does not go with --regex, which says where an answer ends");
  refuses({"--json-schema", "nowhere.json"}, "--json-schema nowhere.json: ", 1);
  refuses({"--json-schema", ""}, "--json-schema: is empty");
  refuses({"--json-schema", "{\"type\":"}, "--json-schema: ");
  refuses({"--json-schema", R"({"items":{"format":"date"}})"},
          "--json-schema: #/items: keyword 'format' is not supported");
  write_text(path("bad.json"), R"({"type":"text"})");
  refuses({"--json-schema", "bad.json"}, "--json-schema bad.json: #: type ");
}

TEST_F(CliText, APromptFileIsItsSingles) {
  write_text(path("p.txt"),
             "# questions\n\nHello\n{\"prompt\": \"Sea\", \"system\": \"Be brief.\", \"seed\": 9}\n"
             "{\"prompt\": \"x\", \"count\": 2}\n\xff\xfe\nWater\n");
  const auto result = json({"-f", "p.txt"}, 3);
  ASSERT_EQ(result["answers"].size(), 3u);
  ASSERT_EQ(result["failures"].size(), 2u);
  EXPECT_EQ(result["failures"][0]["line"], 5);
  EXPECT_EQ(result["failures"][1]["line"], 6);
  EXPECT_EQ(result["answers"][0]["text"], json({"Hello"})["answers"][0]["text"]);
  EXPECT_EQ(result["answers"][1]["text"],
            json({"Sea", "--system", "Be brief.", "-s", "9"})["answers"][0]["text"]);
  EXPECT_EQ(result["answers"][2]["seed"], 4) << "lines keep their seeds when others are mended";
  const CommandResult shown = text({"-f", "p.txt"});
  EXPECT_EQ(shown.exit_code, 3);
  std::string expected;
  for (const auto& answer : result["answers"]) {
    expected += answer["text"];
    if (!expected.ends_with('\n')) expected += '\n';
  }
  EXPECT_EQ(shown.out, expected);
  EXPECT_NE(shown.err.find("p.txt:4: Sea"), std::string::npos) << shown.err;
  EXPECT_EQ(text_of_input({"-f", "-"}, "Hello\n").out, text({"Hello"}).out);
  expect_failure(text_of_input({"-f", "-"}, "\n# nothing\n"), 1, "--prompt-file -: holds no prompt");
  expect_failure(text({"-f", "nowhere.txt"}), 1, "nowhere.txt");
}

TEST_F(CliText, FilesAreWrittenWholeAndNotReplaced) {
  EXPECT_EQ(text({"Hello", "-o", "a.txt"}).out, "");
  EXPECT_EQ(read_text(path("a.txt")), text({"Hello"}).out);
  expect_failure(text({"Hello", "-o", "a.txt", "-s", "1"}), 1, "a.txt: exists already");
  EXPECT_EQ(text({"Hello", "-o", "a.txt", "-s", "1", "--overwrite"}).exit_code, 0);
  EXPECT_EQ(read_text(path("a.txt")), text({"Hello", "-s", "1"}).out);
  expect_failure(text({"Hello", "-o", "nowhere/a.txt"}), 1, "nowhere/a.txt: ");
  expect_failure(text({"Hello", "-o", "-", "--json"}), 2, "taken by --json");
  EXPECT_EQ(text({"Hello", "-o", "-"}).out, text({"Hello"}).out);
  EXPECT_EQ(files(), std::set<std::string>{"a.txt"});
}

TEST_F(CliText, AcceptedStepsAreShown) {
  const std::string plain = text({"Hello", "--temperature", "0"}).out;
  const std::string shown = text({"Hello", "--temperature", "0", "--show-accept", "--color", "always"}).out;
  std::string bare;
  std::set<std::string> colors;
  for (size_t i = 0; i < shown.size(); ++i) {
    if (shown[i] != '\x1b') {
      bare += shown[i];
      continue;
    }
    const size_t end = shown.find('m', i);
    colors.insert(shown.substr(i, end - i));
    i = end;
  }
  EXPECT_EQ(bare, plain);
  EXPECT_GT(colors.size(), 2u);
  EXPECT_EQ(text({"Hello", "--temperature", "0", "--show-accept", "--color", "never"}).out, plain);
  EXPECT_EQ(text({"a<b>&c", "--temperature", "0", "--show-accept", "-o", "x.html"}).exit_code, 0);
  const std::string page = read_text(path("x.html"));
  EXPECT_NE(page.find("a&lt;b&gt;&amp;c"), std::string::npos);
  EXPECT_NE(page.find("title=\"step 1: "), std::string::npos);
  for (const char* part : {"http:", "https:", "<script", "src=", "url("})
    EXPECT_EQ(page.find(part), std::string::npos) << part;
  expect_failure(text({"Hello", "--show-accept", "-o", "x.txt"}), 2, "--show-accept");
}

TEST_F(CliText, DiffusionModelsFillBlocks) {
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

// A plan reads no weights: what it refuses is refused before any are read.
TEST_F(CliText, DiffusionThatCannotBeIsRefusedByThePlan) {
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

TEST_F(CliText, EventsAreJsonLines) {
  EXPECT_EQ(text({"Hello", "--check", "--events", "e.jsonl"}).exit_code, 0);
  std::istringstream lines(read_text(path("e.jsonl")));
  std::map<std::string, int> kinds;
  std::string told;
  size_t tokens = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    EXPECT_EQ(schema_fault(event, "volley.event.1.json"), "");
    ++kinds[event["event"]];
    if (event["event"] == "text") told += event["text"];
    if (event["event"] == "step") tokens += event["tokens"].size();
  }
  EXPECT_EQ(kinds["start"] + kinds["answer"] + kinds["check"] + kinds["end"], 4);
  const auto answer = json({"Hello"})["answers"][0];
  EXPECT_EQ(told, answer["text"]);
  EXPECT_EQ(tokens, answer["tokens"].size());
  expect_failure(text({"Hello", "--events", "e.jsonl"}), 1, "e.jsonl: exists already");
}

TEST_F(CliText, ConversationsRemember) {
  const auto talk = [&](const std::string& input) {
    Command run = command(words({"--chat", "--json", "--temperature", "0"}));
    run.input = input;
    const CommandResult result = run_command(run);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const auto parsed = parse_json(result.out);
    EXPECT_TRUE(parsed.ok()) << result.out;
    EXPECT_EQ(schema_fault(parsed.value(), "volley.text.1.json"), "");
    return parsed.value()["turns"];
  };
  const auto turns = talk("Hello\n\nSea\n/clear\nHello\n/quit\nnever\n");
  ASSERT_EQ(turns.size(), 3u);
  const auto& second = turns[1]["request"]["prompts"][0]["messages"];
  ASSERT_EQ(second.size(), 3u);
  EXPECT_EQ(second[1]["content"], turns[0]["answers"][0]["text"]);
  EXPECT_EQ(second[2]["content"], "Sea");
  EXPECT_EQ(turns[2]["answers"][0]["text"], turns[0]["answers"][0]["text"]) << "/clear forgets";
  EXPECT_EQ(turns[0]["answers"][0]["text"], json({"Hello", "--temperature", "0"})["answers"][0]["text"]);
  const CommandResult shown = text_of_input({"--chat", "--temperature", "0", "Hello"}, "Sea");
  std::string expected;
  for (int i = 0; i < 2; ++i) {
    expected += turns[static_cast<size_t>(i)]["answers"][0]["text"];
    if (!expected.ends_with('\n')) expected += '\n';
  }
  EXPECT_EQ(shown.out, expected) << "the command line's words are the first turn";
  EXPECT_EQ(talk("").size(), 0u);
  std::string much;
  for (int i = 0; i < 300; ++i) much += "no ";
  expect_failure(text_of_input({"--chat"}, "Hello\n" + much + "\n"), 2, "the context of model talker is 256");
}

TEST_F(CliText, TypedConversationsHaveAPromptAndCommands) {
  Command run = command(words({"--chat", "--temperature", "0"}));
  run.input_kind = StandardInput::kTerminal;
  run.input = "Hello\n/help\n/clear\n/usr/ is\n\x04";
  const CommandResult result = run_command(run);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("\n/clear forgets what was said, /quit or Ctrl-D ends\n> "), std::string::npos);
  EXPECT_NE(result.err.find("volley: /help: no such command; /clear forgets"), std::string::npos);
  EXPECT_TRUE(result.err.ends_with("\n> \n")) << result.err;
  EXPECT_EQ(result.out,
            text({"Hello", "--temperature", "0"}).out + text({"/usr/ is", "--temperature", "0"}).out)
      << "a path is said, and nothing is remembered";
}

// At a terminal that shows what is typed, keys edit the line and earlier lines come back, in this
// conversation and the next.
TEST_F(CliText, TypedLinesAreEditedAndRemembered) {
  const auto talk = [&](const std::string& keys) {
    Command run = command(words({"--chat", "--temperature", "0"}));
    run.input_kind = StandardInput::kTerminal;
    run.error = StandardError::kTerminal;
    run.environment.insert({{"TERM", "xterm"}, {"XDG_STATE_HOME", path("state")}, {"LC_ALL", "C"}});
    run.input = keys + "/quit\n";
    const CommandResult result = run_command(run);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result;
  };
  const auto said = [&](const std::string& lines) {
    return text_of_input({"--chat", "--temperature", "0"}, lines).out;
  };
  constexpr const char *kUp = "\x1b[A", *kHome = "\x01", *kForward = "\x06", *kCut = "\x0b";
  EXPECT_EQ(talk("Hello\n").out, said("Hello\n"));
  const auto history = std::filesystem::status(path("state/volley/chat_history"));
  EXPECT_EQ(history.permissions(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  // The last line but one of the program before: /quit was the last.
  EXPECT_EQ(talk(std::string(kUp) + kUp + "\n").out, said("Hello\n"));
  EXPECT_EQ(talk(std::string("is the") + kHome + "What \n").out, said("What is the\n"));
  EXPECT_EQ(talk(std::string("1 2 3") + kHome + kForward + kForward + kForward + kCut + "\n").out,
            said("1 2\n"));
  // Characters of any length, typed in a locale that knows none; a moved cursor goes over whole ones.
  EXPECT_EQ(talk(std::string("世界 🙂!") + kHome + kForward + "ü\n").out, said("世ü界 🙂!\n"));
  EXPECT_EQ(talk("\xff!\xc3!\n").out, said("\xEF\xBF\xBD!\xEF\xBF\xBD!\n"))
      << "what is no character takes no other along";
  EXPECT_NE(talk("Hello\n").err.find("> "), std::string::npos);
  // What is no history of ours stays as it is.
  write_text(path("state/volley/chat_history"), "mine\n");
  talk("Hello\n");
  EXPECT_EQ(read_text(path("state/volley/chat_history")), "mine\n");
}

// A turn takes what the cache has of the last one, and answers as if it had not.
TEST_F(CliText, TurnsKeepWhatTheyHaveInCommon) {
  write_toy_text_folder(box_.file("long"), {.context = 2048});
  std::string much;
  for (int i = 0; i < 90; ++i) much += std::to_string(i * 7919 % 1000) + " is ";
  Command run =
      command({"text", "-m", "long", "--max-tokens", "12", "-t", "1", "--chat", "--json", "--check"});
  run.input = much + "\nAnd then?\nAnd?\n";
  const CommandResult result = run_command(run);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const auto turns = parse_json(result.out).value()["turns"];
  ASSERT_EQ(turns.size(), 3u);
  int64_t last = 0;
  for (const auto& turn : turns) {
    const auto& statistics = turn["statistics"];
    const int64_t kept = statistics["prompt_rows_kept"], ran = statistics["prompt_rows"];
    EXPECT_EQ(kept % 256, 0);
    EXPECT_EQ(kept + ran, turn["answers"][0]["prompt_tokens"]);
    EXPECT_EQ(turn["checks"][0]["equal"], turn["checks"][0]["tokens"]);
    EXPECT_GE(kept, last);
    last = kept;
  }
  EXPECT_GE(last, 256);
  EXPECT_NE(result.err.find(" of them kept, in "), std::string::npos) << result.err;
}

TEST_F(CliText, WhatCannotBeMeantIsRefused) {
  const auto refuses = [&](std::vector<std::string> arguments, const std::string& part, int exit_code = 2) {
    expect_failure(text(std::move(arguments)), exit_code, part);
  };
  expect_failure(volley({"text", "Hello"}), 2, "name a model");
  refuses({}, "say something");
  refuses({""}, "prompt: is empty");
  refuses({"\xff\xfe"}, "is not UTF-8");
  refuses({"Hello", "--stop", ""}, "--stop: is empty");
  refuses({"Hello", "--stop", "\xff"}, "--stop '\\xff': is not UTF-8");
  refuses({"Hello", "--chat-format", "nobody"}, "there are chatml, smollm2");
  refuses({"Hello", "--chat-format", "mistral-v0.1", "--system", "x"}, "mistral-v0.1");
  refuses({"Hello", "-f", "p.txt"}, "does not go with a prompt");
  refuses({"--chat", "-f", "p.txt"}, "does not go with --prompt-file");
  refuses({"--chat", "--raw"}, "does not go with --chat");
  refuses({"--raw", "--system", "x", "Hello"}, "does not go with --system");
  refuses({"--raw", "--chat-format", "chatml", "Hello"}, "does not go with --chat-format");
  expect_failure(volley({"text", "-m", "talker", "--max-tokens", "0", "Hello"}), 2, "--max-tokens 0");
  refuses({"Hello", "--temperature", "-1"}, "--temperature -1");
  refuses({"Hello", "--top-p", "2"}, "--top-p 2");
  refuses({"Hello", "--decoder", "lokup"}, "nearest is lookup");
  refuses({"Hello", "--decoder", "masked"}, "text comes from sequential");
  refuses({"Hello", "--decoder", "tree:accept=rejection", "--check"}, "--check");
  refuses({"Hello", "--dtype", "q4_0"}, "expected auto|f32|bf16|q8_0");
  refuses({"Hello", "-d", "gpu"}, "unknown device");
  refuses({"Hello", "--maxtokens", "3"}, "nearest is --max-tokens");
  refuses({"Hello", "--events", "x", "-o", "x"}, "is also where the text goes");
  std::string much;
  for (int i = 0; i < 300; ++i) much += "no ";
  refuses({much}, "the context of model talker is 256, answer included");
  EXPECT_TRUE(files().empty());
}

TEST_F(CliText, BrokenModelsAreOneLine) {
  expect_failure(volley({"text", "-m", "nowhere/x.gguf", "Hello"}), 4, "nowhere/x.gguf");
  write_toy_text_gguf(path("toy.gguf"));
  EXPECT_EQ(volley({"text", "-m", "toy.gguf", "--max-tokens", "24", "Hello"}).out, text({"Hello"}).out);
  const std::string bytes = read_text(path("toy.gguf"));
  for (const size_t length : {size_t{4}, size_t{30}, size_t{5000}, bytes.size() - 100}) {
    write_text(path("cut.gguf"), bytes.substr(0, length));
    expect_failure(volley({"text", "-m", "./cut.gguf", "Hello"}), 1, "cut.gguf: ");
  }
  expect_failure(volley({"text", "-m", "toy", "Hello"}), 1, "config.json");  // a model of pictures
  std::filesystem::remove(box_.file("talker/tokenizer.json"));
  expect_failure(text({"Hello"}), 4, "no tokenizer.json");
}

TEST_F(CliText, TheContextEndsALongAnswer) {
  const CommandResult result =
      volley({"text", "-m", "talker", "--max-tokens", "5000", "--temperature", "0", "Hello"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(result.err.find("context of 256 tokens is full"), std::string::npos) << result.err;
}

TEST_F(CliText, InterruptionKeepsWhatWasPrinted) {
  for (const int number : {SIGINT, SIGTERM}) {
    std::string lines;
    for (int i = 0; i < 2000; ++i) lines += "Hello " + std::to_string(i) + "\n";
    write_text(path("many.txt"), lines);
    Command run = command({"text", "-m", "talker", "-f", "many.txt", "-t", "1", "--decoder", "sequential"});
    run.on_output = [number](pid_t process) { ::kill(process, number); };
    const CommandResult result = run_command(run);
    expect_failure(result, 130, "interrupted: what was made is kept");
    EXPECT_FALSE(result.out.empty());
    EXPECT_TRUE(result.out.ends_with('\n'));
  }
}

// While it waits for words, with an editor and without.
TEST_F(CliText, ConversationsEndAtOnceWhenInterrupted) {
  for (const StandardError shown : {StandardError::kTerminal, StandardError::kPipe}) {
    for (const int number : {SIGINT, SIGTERM}) {
      Command run = command(words({"--chat", "Hello", "--color", "never"}));
      run.input_kind = StandardInput::kTerminal;
      run.error = shown;
      run.environment.insert({{"TERM", "xterm"}, {"XDG_STATE_HOME", path("state")}});
      run.input = "";
      run.awaited = "> ";
      run.on_output = [number](pid_t process) { ::kill(process, number); };
      const CommandResult result = run_command(run);
      EXPECT_EQ(result.signal, 0) << result.err;
      EXPECT_EQ(result.exit_code, 130) << result.err;
      EXPECT_NE(result.err.find("interrupted: what was made is kept"), std::string::npos) << result.err;
    }
  }
}

TEST_F(CliText, LostOutputIsAFailureAndNoSignal) {
  for (auto output : {StandardOutput::kClosed, StandardOutput::kFull, StandardOutput::kPipeWithoutReader}) {
    for (const std::vector<std::string>& arguments :
         {std::vector<std::string>{"Hello"}, {"Hello", "--json"}}) {
      Command run = command(words(arguments));
      run.output = output;
      expect_failure(run_command(run), 1, "standard output: cannot write");
    }
  }
}

}  // namespace
}  // namespace volley::test
