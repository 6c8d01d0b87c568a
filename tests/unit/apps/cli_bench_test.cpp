// volley bench: what is measured and written, never how fast.
#include <algorithm>
#include <map>

#include "tests/unit/apps/cli_fixture.h"
#include "tests/unit/text/toy_text_model.h"

namespace volley::test {
namespace {

class CliBench : public Cli {
 protected:
  CliBench() { write_toy_text_folder(box_.file("talker")); }

  // A small benchmark but for what the arguments say.
  static std::vector<std::string> words(std::vector<std::string> arguments) {
    std::vector<std::string> all{"bench", "text"};
    for (const auto& [flag, value] : std::map<std::string, std::string>{{"-m", "talker"},
                                                                        {"--prompt-tokens", "40"},
                                                                        {"--tokens", "12"},
                                                                        {"--repeat", "2"},
                                                                        {"--warmup", "0"},
                                                                        {"-t", "1"}}) {
      if (std::ranges::find(arguments, flag) == arguments.end()) all.insert(all.end(), {flag, value});
    }
    all.insert(all.end(), arguments.begin(), arguments.end());
    return all;
  }
  CommandResult bench(std::vector<std::string> arguments) const {
    return volley(words(std::move(arguments)));
  }
  nlohmann::json json(std::vector<std::string> arguments, int exit_code = 0) const {
    return json_of(words(std::move(arguments)), "volley.bench.1.json", exit_code);
  }
  static std::vector<std::string> names(const nlohmann::json& result) {
    std::vector<std::string> all;
    for (const auto& row : result["rows"]) all.push_back(row["name"]);
    return all;
  }
  static nlohmann::json row(const nlohmann::json& result, const std::string& name) {
    for (const auto& row : result["rows"]) {
      if (row["name"] == name) return row;
    }
    ADD_FAILURE() << "no row " << name;
    return {};
  }
  nlohmann::json saved(const std::string& name) const { return read_json_file(path(name)); }
  // A copy of a saved file with one value changed.
  void change(const std::string& from, const std::string& to, const char* pointer,
              const nlohmann::json& value) const {
    nlohmann::json json = saved(from);
    json[nlohmann::json::json_pointer(pointer)] = value;
    write_text(path(to), json.dump());
  }
};

TEST_F(CliBench, MeasuresEachRepetition) {
  const auto result = json({"--decoder", "lookup:draft=4,tree", "--warmup", "1"});
  EXPECT_EQ(names(result),
            (std::vector<std::string>{
                "load", "prefill", "first token", "sequential greedy", "lookup:draft=4 greedy",
                "lookup:draft=4 greedy: tokens a forward", "lookup:draft=4 greedy: rows a forward",
                "lookup:draft=4 greedy: over sequential", "tree greedy", "tree greedy: tokens a forward",
                "tree greedy: rows a forward", "tree greedy: over sequential", "peak memory",
                "peak memory: of the device"}));
  for (const auto& row : result["rows"]) {
    EXPECT_EQ(row["samples"].size(), 2u) << row;
    EXPECT_GT(row["median"], 0.0) << row;
    EXPECT_EQ(row["interval"]["kind"], "range") << row;
  }
  for (const char* name : {"load", "first token"}) {
    EXPECT_EQ(row(result, name)["unit"], "s");
    EXPECT_EQ(row(result, name)["better"], "lower");
  }
  EXPECT_EQ(row(result, "prefill")["unit"], "prompt tokens/s");
  EXPECT_EQ(row(result, "tree greedy")["better"], "higher");
  EXPECT_NE(row(result, "lookup:draft=4 greedy")["method"].get<std::string>().find("draft=4,"),
            std::string::npos);
  // Counts are the same in every repetition, and those of volley text.
  write_text(path("p.txt"), "Hello\nSea and sky\n");
  const auto text = json_of({"text", "-m", "talker", "--max-tokens", "12", "-t", "1", "--temperature", "0",
                             "--decoder", "tree", "-f", "p.txt"},
                            "volley.text.1.json");
  const auto counted = json({"--decoder", "tree", "-f", "p.txt"});
  const auto tokens = row(counted, "tree greedy: tokens a forward");
  ASSERT_EQ(tokens["samples"].size(), 2u);
  for (const auto& sample : tokens["samples"]) EXPECT_EQ(sample, text["statistics"]["tokens_per_forward"]);
  const auto rows = row(counted, "tree greedy: rows a forward");
  ASSERT_EQ(rows["samples"].size(), 2u);
  for (const auto& sample : rows["samples"]) EXPECT_EQ(sample, text["statistics"]["rows_per_forward"]);
}

TEST_F(CliBench, SaysWhatItMeasuredWith) {
  write_text(path("p.txt"), "Hello\n{\"prompt\": \"Sea\", \"seed\": 9}\n");
  const auto result = json({"-f", "p.txt", "--temperature", "0.7", "-s", "5", "--dtype", "q8_0"});
  const auto& settings = result["settings"];
  EXPECT_EQ(settings["device"], "cpu");
  EXPECT_EQ(settings["threads"], 1);
  EXPECT_EQ(settings["dtype"], "q8_0");
  EXPECT_EQ(settings["prompt_tokens"], 40);
  EXPECT_EQ(settings["max_tokens"], 12);
  EXPECT_EQ(settings["temperature"], 0.7);
  EXPECT_EQ(settings["top_k"], 40);
  EXPECT_EQ(settings["seed"], 5);
  EXPECT_EQ(settings["chat_format"], "chatml");
  EXPECT_EQ(settings["prompts"]["source"], "p.txt");
  EXPECT_EQ(settings["prompts"]["count"], 2);
  EXPECT_EQ(result["repeat"], 2);
  EXPECT_EQ(result["warmup"], 0);
  EXPECT_EQ(result["interrupted"], false);
  EXPECT_EQ(result["weights"][0]["name"], "talker");
  EXPECT_EQ(result["weights"][0]["bytes"], std::filesystem::file_size(box_.file("talker/model.safetensors")));
  const auto text = json_of({"text", "-m", "talker", "--max-tokens", "2", "x"}, "volley.text.1.json");
  EXPECT_EQ(result["weights"][0]["hash"], text["weights"]["model"]);
  const auto all = names(result);
  for (const char* name : {"sequential greedy", "auto greedy", "sequential sampled", "auto sampled"})
    EXPECT_NE(std::ranges::find(all, name), all.end()) << name;
  const auto built_in = json({"--raw"});
  EXPECT_EQ(built_in["settings"]["prompts"]["source"], "built-in");
  EXPECT_EQ(built_in["settings"]["temperature"], 0.0);
  EXPECT_FALSE(built_in["settings"].contains("chat_format"));
  EXPECT_NE(json({"-s", "-1"})["settings"]["seed"], json({"-s", "-1"})["settings"]["seed"]);
}

TEST_F(CliBench, ShowsATableAndWritesFiles) {
  const CommandResult result = bench({"--save", "a.json", "--svg", "a.svg"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  for (const char* part : {"\nload    ", "\nprefill    ", "\n  tokens a forward ", "built in and synthetic",
                           "interval: of 2, smallest to largest"})
    EXPECT_NE(result.out.find(part), std::string::npos) << part << result.out;
  EXPECT_EQ(schema_fault(saved("a.json"), "volley.bench.1.json"), "");
  EXPECT_TRUE(read_text(path("a.svg")).starts_with("<svg "));
  EXPECT_EQ(files(), (std::set<std::string>{"a.json", "a.svg"}));
  const std::string before = read_text(path("a.json"));
  expect_failure(bench({"--save", "a.json"}), 1, "a.json: exists already; --overwrite replaces it");
  expect_failure(bench({"--svg", "a.svg"}), 1, "a.svg: exists already");
  EXPECT_EQ(read_text(path("a.json")), before);
  EXPECT_EQ(bench({"--save", "a.json", "--overwrite", "--tokens", "8"}).exit_code, 0);
  EXPECT_NE(read_text(path("a.json")), before);
  expect_failure(bench({"--save", "x/b.json"}), 1, "x/b.json: ");
  expect_failure(bench({"--save", "b", "--svg", "b"}), 2, "--svg b: is also the file of --save");
  EXPECT_NE(bench({"-v"}).err.find("weights in memory"), std::string::npos);
}

TEST_F(CliBench, DraftModelsAndDiffusionModelsAreMeasured) {
  write_toy_text_folder(box_.file("small"), {.seed = 5});
  const auto drafted = json({"--draft-model", "small", "--draft-max", "3", "--decoder", "draft,lookup"});
  const auto all = names(drafted);
  for (const char* name : {"load of the draft model", "draft greedy: over sequential", "lookup greedy"})
    EXPECT_NE(std::ranges::find(all, name), all.end()) << name;
  ASSERT_EQ(drafted["weights"].size(), 2u);
  EXPECT_EQ(drafted["weights"][1]["role"], "draft");
  EXPECT_EQ(drafted["weights"][1]["name"], "small");
  EXPECT_NE(row(drafted, "draft greedy")["method"].get<std::string>().find("draft=3"), std::string::npos);
  write_toy_heads(path("crown.safetensors"), text::HeadsFamily::kHydra);
  const auto headed = json({"--heads", "./crown.safetensors", "--decoder", "heads:confidence=0,lookup"});
  const auto with_heads = names(headed);
  for (const char* name : {"load of the heads", "heads:confidence=0 greedy: over sequential"})
    EXPECT_NE(std::ranges::find(with_heads, name), with_heads.end()) << name;
  ASSERT_EQ(headed["weights"].size(), 2u);
  EXPECT_EQ(headed["weights"][1]["role"], "heads");
  EXPECT_EQ(headed["weights"][1]["name"], "crown");
  write_toy_llada_folder(box_.file("masker"));
  const auto masked = json({"-m", "masker", "--decoder", "auto,diffusion:steps=6"});
  EXPECT_EQ(names(masked),
            (std::vector<std::string>{
                "load", "auto greedy", "auto greedy: tokens a forward", "auto greedy: rows a forward",
                "diffusion:steps=6 greedy", "diffusion:steps=6 greedy: tokens a forward",
                "diffusion:steps=6 greedy: rows a forward", "peak memory", "peak memory: of the device"}));
  EXPECT_EQ(masked["settings"]["prompt_tokens"], 0);
  EXPECT_EQ(row(masked, "diffusion:steps=6 greedy: tokens a forward")["samples"][0], 2.0);
}

TEST_F(CliBench, WhatCannotBeMeasuredIsOneLine) {
  const auto refuses = [&](std::vector<std::string> arguments, const std::string& part, int exit_code = 2) {
    expect_failure(bench(std::move(arguments)), exit_code, part);
  };
  expect_failure(volley({"bench", "text"}), 4, "bench text: no text model was pulled");
  expect_failure(volley({"bench"}), 2, "knows diff, text");
  expect_failure(volley({"bench", "txt"}), 2, "nearest is text");
  refuses({"-m", "nowhere/x"}, "nowhere/x", 4);
  refuses({"-m", "toy"}, "config.json", 1);  // a model of pictures
  refuses({"--decoder", "lookpu"}, "nearest is lookup");
  refuses({"--decoder", "lookup,lookup"}, "--decoder lookup,lookup: lookup stands twice");
  refuses({"--decoder", "lookup,"}, "--decoder lookup,: a decoder has no name");
  refuses({"--decoder", "draft"}, "--decoder draft: needs a draft model");
  refuses({"--decoder", "diffusion"}, "diffusion");
  refuses({"--prompt-tokens", "256"},
          "--prompt-tokens 256: the context of model talker is 256, answer included");
  refuses({"--repeat", "0"}, "--repeat 0: expected a whole number from 1 to 1000");
  refuses({"--tokens", "1"}, "--tokens 1: expected a whole number from 2 to ");
  refuses({"--raw", "--chat-format", "chatml"}, "--raw: does not go with --chat-format");
  refuses({"-f", "-"}, "--prompts -: name a file");
  refuses({"-f", "nowhere.txt"}, "nowhere.txt", 1);
  write_text(path("p.txt"), "Hello\n{\"prompt\": 3}\n");
  refuses({"--prompts", "p.txt"}, "p.txt:2: ", 1);
  refuses({"-d", "cuda:99"}, "cuda:99", 1);
  json({"--decoder", "nobody"}, 2);
  EXPECT_TRUE(files() == std::set<std::string>{"p.txt"});
}

TEST_F(CliBench, DiffComparesFiles) {
  ASSERT_EQ(bench({"--save", "a.json", "--repeat", "1"}).exit_code, 0);
  const auto same = json_of({"bench", "diff", "a.json", "a.json"}, "volley.bench.1.json");
  EXPECT_EQ(same["rows"].size(), saved("a.json")["rows"].size());
  for (const auto& row : same["rows"]) {
    EXPECT_EQ(row["verdict"], "no difference");
    EXPECT_EQ(row["ratio"], 1.0);
    EXPECT_EQ(row["old"], row["new"]);
  }
  // The first row is load: ten times as long, and one row has another name.
  nlohmann::json slow = saved("a.json");
  nlohmann::json& load = slow["rows"][0];
  for (const char* key : {"/samples/0", "/median", "/interval/low", "/interval/high"}) {
    nlohmann::json& value = load[nlohmann::json::json_pointer(key)];
    value = value.get<double>() * 10.0;
  }
  slow["rows"][1]["name"] = "elsewhere";
  write_text(path("b.json"), slow.dump());
  const auto compared =
      json_of({"bench", "diff", "a.json", "b.json", "--svg", "d.svg"}, "volley.bench.1.json");
  EXPECT_EQ(compared["rows"][0]["verdict"], "slower");
  EXPECT_NEAR(compared["rows"][0]["ratio"].get<double>(), 10.0, 1e-9);
  EXPECT_EQ(compared["only_old"], nlohmann::json::array({"prefill"}));
  EXPECT_EQ(compared["only_new"], nlohmann::json::array({"elsewhere"}));
  EXPECT_TRUE(read_text(path("d.svg")).starts_with("<svg "));
  const CommandResult shown = volley({"bench", "diff", "b.json", "a.json"});
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_NE(shown.out.find(" 0.1000  faster\n"), std::string::npos) << shown.out;
  EXPECT_NE(shown.out.find("only in the old: elsewhere\nonly in the new: prefill\n"), std::string::npos)
      << shown.out;
  expect_failure(volley({"bench", "diff", "a.json", "b.json", "--svg", "d.svg"}), 1, "d.svg: exists already");
}

TEST_F(CliBench, DiffRefusesOtherMachinesUnlessForced) {
  ASSERT_EQ(bench({"--save", "a.json", "--repeat", "1"}).exit_code, 0);
  change("a.json", "b.json", "/machine/processor", "Another\n\x1b[31m");
  const CommandResult refused = volley({"bench", "diff", "a.json", "b.json"});
  EXPECT_EQ(refused.error_lines().size(), 1u) << refused.err;
  expect_failure(refused, 1, "a.json and b.json: measured otherwise: processor ");
  expect_failure(refused, 1, " and Another\\x0a\\x1b[31m; --force compares them nevertheless");
  EXPECT_EQ(refused.out, "");
  const CommandResult forced = volley({"bench", "diff", "a.json", "b.json", "--force"});
  EXPECT_EQ(forced.exit_code, 0) << forced.err;
  EXPECT_NE(forced.err.find("measured otherwise: processor "), std::string::npos) << forced.err;
  EXPECT_EQ(
      json_of({"bench", "diff", "a.json", "b.json", "--force"}, "volley.bench.1.json")["differences"].size(),
      1u);
  for (const auto& [arguments, part] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"-t", "2"}, "threads 1 and 2"},
           {{"--dtype", "q8_0"}, " and q8_0"},
           {{"--tokens", "6"}, "tokens 12 and 6"},
           {{"--raw"}, "chat format chatml and none"},
           {{"-s", "3"}, "seed 0 and 3"}}) {
    std::vector<std::string> more{"--save", "c.json", "--overwrite", "--repeat", "1"};
    more.insert(more.end(), arguments.begin(), arguments.end());
    ASSERT_EQ(bench(more).exit_code, 0);
    expect_failure(volley({"bench", "diff", "a.json", "c.json"}), 1, part);
  }
}

TEST_F(CliBench, DiffNamesFileAndFault) {
  ASSERT_EQ(bench({"--save", "a.json", "--repeat", "1"}).exit_code, 0);
  const auto refuses = [&](const std::string& name, const std::string& part) {
    for (const auto& arguments :
         {std::vector<std::string>{"bench", "diff", "a.json", name}, {"bench", "diff", name, "a.json"}}) {
      const CommandResult result = volley(arguments);
      EXPECT_EQ(result.error_lines().size(), 1u) << result.err;
      expect_failure(result, 1, part);
    }
  };
  refuses("nowhere.json", "nowhere.json: ");
  refuses(".", ".: ");
  write_text(path("x.json"), "words");
  refuses("x.json", "x.json: JSON: ");
  write_text(path("x.json"), "");
  refuses("x.json", "x.json: ");
  write_text(path("x.json"), "{\"schema\": \"volley.text/1\"}");
  refuses("x.json", "x.json: key 'schema': expected volley.bench/1");
  write_text(path("x.json"), json_of({"bench", "diff", "a.json", "a.json"}, "volley.bench.1.json").dump());
  refuses("x.json", "x.json: holds no measurements of volley bench text");
  const std::string good = read_text(path("a.json"));
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = saved("a.json").dump();
    text.replace(text.find(from), from.size(), to);
    write_text(path("x.json"), text);
  };
  with("\"samples\":[", "\"samples\":[NaN,");
  refuses("x.json", "x.json: JSON: ");
  with("\"samples\":[", "\"samples\":[1e999,");
  refuses("x.json", "x.json: JSON: ");
  change("a.json", "x.json", "/rows/0/samples", nlohmann::json::array());
  refuses("x.json", "x.json: row 'load': key 'samples': is empty");
  change("a.json", "x.json", "/rows/0/median", 1e300);
  refuses("x.json", "x.json: row 'load': key 'median': ");
  write_text(path("x.json"), good.substr(0, good.size() / 2));
  refuses("x.json", "x.json: JSON: ");
  write_text(path("x.json"), std::string(17 << 20, ' ') + good);
  refuses("x.json", "x.json: JSON: text of ");
  write_text(path("x.json"), std::string(100000, '['));
  refuses("x.json", "x.json: JSON: nested deeper than");
  expect_failure(volley({"bench", "diff", "a.json"}), 2, "bench diff: name two files");
  json_of({"bench", "diff", "a.json", "nowhere.json"}, "volley.bench.1.json", 1);
}

}  // namespace
}  // namespace volley::test
