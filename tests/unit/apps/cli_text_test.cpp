// volley text, from its words to its answers.
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <regex>
#include <sstream>
#include <thread>

#include "tests/unit/apps/cli_text_fixture.h"

namespace volley::test {
namespace {

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
  EXPECT_NE(result.error_lines()[2].find("rows a forward"), std::string::npos);
  EXPECT_NE(result.error_lines()[2].find("; prompt "), std::string::npos);
  EXPECT_EQ(text({"What is the sea?", "-q"}).err, "");
  EXPECT_NE(text({"What is the sea?", "-v"}).err.find("peak memory"), std::string::npos);
  EXPECT_GT(json({"Hello"})["statistics"]["seconds"]["load"], 0.0);
  EXPECT_EQ(result.out.find('\x1b'), std::string::npos);
}

TEST_F(CliText, WordsArriveAsTheyWereTyped) {
  for (const std::string prompt : {"[1, 2, 3]", "[]", "[[a]]", "[hello]", "\x02[a]"}) {
    const auto asked = json({"--temperature", "0", "--stop", "[x,y]", prompt})["request"];
    EXPECT_EQ(asked["prompts"][0]["messages"].back()["content"], prompt);
    EXPECT_EQ(asked["stops"], nlohmann::json::array({"[x,y]"}));
  }
  EXPECT_EQ(text({"--stop=.", "Once upon a time", "-q"}).exit_code, 0);
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

TEST_F(CliText, EventsGoToStandardOutputWhereTheTextDoesNot) {
  const CommandResult piped = text({"Hello", "-o", "a.txt", "--events", "-"});
  EXPECT_EQ(piped.exit_code, 0) << piped.err;
  EXPECT_TRUE(piped.out.starts_with("{")) << piped.out;
  std::istringstream lines(piped.out);
  for (std::string line; std::getline(lines, line);)
    EXPECT_EQ(schema_fault(nlohmann::json::parse(line), "volley.event.1.json"), "") << line;
  EXPECT_EQ(files(), std::set<std::string>{"a.txt"});
  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"-o", "-"}}) {
    std::vector<std::string> arguments{"Hello", "--events", "-"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    expect_failure(text(arguments), 2,
                   "--events -: standard output is taken by the text; --out FILE puts that");
  }
  expect_failure(text({"Hello", "--events", "-", "--json"}), 2,
                 "--events -: standard output is taken by --json");
  expect_failure(text({"Hello", "-o", std::string(300, 'n')}), 1, "n: cannot create: File name too long");
}

TEST_F(CliText, TwoDashesEndTheFlags) {
  write_text(path("p.txt"), "--raw [a,b]\n");
  EXPECT_EQ(text({"--", "--raw", "[a,b]"}).out, text({"-f", "p.txt"}).out);
  EXPECT_EQ(text({"--stop", "--", "Hello"}).exit_code, 0) << "a flag's value";
}

TEST_F(CliText, WhatCannotBeMeantIsRefused) {
  const auto refuses = [&](std::vector<std::string> arguments, const std::string& part, int exit_code = 2) {
    expect_failure(text(std::move(arguments)), exit_code, part);
  };
  expect_failure(volley({"text", "Hello"}), 4, "text: no text model was pulled; volley models pull smollm2");
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
  write_toy_text_folder(box_.file("endless"), {.is_endless = true});
  const CommandResult result =
      volley({"text", "-m", "endless", "--max-tokens", "5000", "--temperature", "0", "Hello"});
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

// A long prompt is stopped between its chunks.
TEST_F(CliText, InterruptionNeedNotWaitForThePrompt) {
  write_toy_text_folder(box_.file("endless"), {.context = 60000, .is_endless = true});
  std::string much;
  for (int i = 0; i < 25000; ++i) much += "no ";
  write_text(path("much.txt"), much + "\n");
  Command run = command({"text", "-m", "endless", "-f", "much.txt", "-t", "1"});
  run.awaited = "tokens\n";  // the line before the prompt runs
  run.on_output = [](pid_t process) { ::kill(process, SIGINT); };
  const CommandResult result = run_command(run);
  expect_failure(result, 130, "interrupted: nothing was made");
}

TEST_F(CliText, AnswersOfAFileKnowTheirLines) {
  write_text(path("lines.txt"), "Hello\n\n# said\n\xff\nWhat?\n");
  const auto made = parse_json(text({"-f", "lines.txt", "--json"}).out).value();
  ASSERT_EQ(made["answers"].size(), 2u);
  EXPECT_EQ(made["answers"][0]["line"], 1);
  EXPECT_EQ(made["answers"][1]["line"], 5);
  EXPECT_EQ(made["answers"][1]["seed"], 2) << "of lines that hold something";
  EXPECT_EQ(made["failures"][0]["line"], 4);
}

TEST_F(CliText, PromptFilesMayBePipes) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  std::thread writer([&] { write_text(path("pipe"), "Hello\nWhat?\n"); });
  const CommandResult result = text({"-f", "pipe", "--json"});
  writer.join();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(parse_json(result.out).value()["answers"].size(), 2u);
}

TEST_F(CliText, APageNeedsNoFurtherFlag) {
  EXPECT_EQ(text({"Hello", "-o", "page.html"}).exit_code, 0);
  EXPECT_TRUE(read_text(path("page.html")).starts_with("<!DOCTYPE html>"));
}

TEST_F(CliText, AFolderMayHoldAGgufFileAlone) {
  std::filesystem::create_directories(path("pulled"));
  write_toy_text_gguf(path("pulled/model.gguf"));
  const std::string expected = volley({"text", "-m", "./pulled/model.gguf", "Hello"}).out;
  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(volley({"text", "-m", "./pulled", "Hello"}).out, expected);
  write_toy_text_gguf(path("pulled/other.gguf"));
  expect_failure(volley({"text", "-m", "./pulled", "Hello"}), 4, "model.safetensors");
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
