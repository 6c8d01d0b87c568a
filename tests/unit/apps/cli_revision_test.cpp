// volley models pull where the hub names revisions: files of one model are of one of them.
#include <algorithm>

#include "core/base/sha256.h"
#include "core/io/byte_reader.h"
#include "tests/unit/apps/cli_fixture.h"
#include "tests/unit/apps/hub_server.h"

namespace volley::test {
namespace {

constexpr const char* kName = "smollm2-135m";
constexpr const char* kResolve = "/HuggingFaceTB/SmolLM2-135M-Instruct/resolve/";
constexpr const char* kWeights = "model.safetensors";
const std::string kFirst(40, 'a'), kSecond(40, 'b');

class CliRevision : public Cli {
 protected:
  // Serves the model's files at a revision; a server that names none has an empty `commit`.
  void serve(const std::string& revision, const std::string& commit, const std::string& contents) {
    for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json", kWeights}) {
      HostedFile& served = at(revision, file);
      served = {.body = std::string(file) + " of " + contents, .etag = '"' + contents + '"'};
      served.commit = commit;
    }
    HostedFile& weights = at(revision, kWeights);
    weights.body.resize(5000, contents.back());
    weights.linked_etag = sha256_hex(as_bytes(weights.body));
  }
  // The revision that main is from here on; the older ones stay.
  void publish(const std::string& commit) {
    serve(commit, commit, commit);
    serve("main", commit, commit);
  }
  HostedFile& at(const std::string& revision, const std::string& file) {
    return served_.files[kResolve + revision + "/" + file];
  }
  void withdraw(const std::string& revision) {
    std::erase_if(served_.files,
                  [&](const auto& file) { return file.first.starts_with(kResolve + revision + "/"); });
  }

  CommandResult pull() {
    hub_.set(served_);
    before_ = hub_.hub_requests().size();
    return volley({"models", "pull", kName, "--endpoint", hub_.endpoint()});
  }
  // Of the last pull, from the revision on: "main/config.json".
  std::vector<std::string> asked() const {
    std::vector<std::string> paths;
    const std::vector<SeenRequest> seen = hub_.hub_requests();
    for (size_t i = before_; i < seen.size(); ++i)
      paths.push_back(seen[i].path.substr(std::string(kResolve).size()));
    return paths;
  }
  int64_t asked_of(const std::string& revision) const {
    return std::ranges::count_if(asked(), [&](const auto& path) { return path.starts_with(revision); });
  }
  // A first attempt that ends after 2,000 bytes of the weights.
  void begin(const std::string& revision) {
    at(revision, kWeights).ends_after = 2000;
    expect_failure(pull(), 1, "run it again to go on");
    at(revision, kWeights).ends_after = -1;
    EXPECT_EQ(std::filesystem::file_size(stored(std::string(kWeights) + ".part")), 2000u);
  }

  std::string stored(const std::string& file) const {
    return data("volley/models/" + std::string(kName) + "/" + file);
  }
  std::string kept() const { return read_text(stored(".revision")); }
  // All files are those of that revision, and nothing else is there.
  void expect_all_of(const std::string& revision) {
    for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json", kWeights})
      EXPECT_TRUE(read_text(stored(file)) == at(revision, file).body) << file;
    EXPECT_FALSE(std::filesystem::exists(stored(std::string(kWeights) + ".part")));
    EXPECT_FALSE(std::filesystem::exists(stored(std::string(kWeights) + ".part.json")));
  }

  HubSettings served_;
  HubServer hub_;
  size_t before_ = 0;
};

TEST_F(CliRevision, TheFirstAnswerNamesTheRevisionOfAllFiles) {
  publish(kFirst);
  const CommandResult result = pull();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  expect_all_of(kFirst);
  const std::vector<std::string> paths = asked();
  ASSERT_GE(paths.size(), 4u);
  EXPECT_EQ(paths[0], "main/config.json");
  EXPECT_EQ(asked_of(kFirst + "/"), std::ssize(paths) - 1);
  EXPECT_EQ(kept(), kFirst + "\n");
  // What pulling keeps for itself is no part of the model.
  int64_t bytes = 0;
  for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json", kWeights})
    bytes += std::ssize(at(kFirst, file).body);
  nlohmann::json listed;
  const auto list = json_of({"models", "list"}, "volley.models.1.json");
  for (const auto& model : list["models"]) {
    if (model["name"] == kName) listed = model;
  }
  EXPECT_EQ(listed["bytes"], bytes);
}

TEST_F(CliRevision, TwoAttemptsAcrossAChangedMainBringOneRevision) {
  publish(kFirst);
  begin(kFirst);
  publish(kSecond);
  const CommandResult result = pull();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  expect_all_of(kFirst);
  EXPECT_EQ(asked_of("main/"), 0);
  EXPECT_EQ(hub_.hub_requests().back().path, kResolve + kFirst + "/" + kWeights);
  EXPECT_EQ(hub_.hub_requests().back().range, "bytes=2000-");
  // So does an attempt after a file was lost.
  std::filesystem::remove(stored("config.json"));
  EXPECT_EQ(pull().exit_code, 0);
  expect_all_of(kFirst);
  // A new pull brings the new one.
  volley({"models", "remove", kName});
  EXPECT_EQ(pull().exit_code, 0);
  expect_all_of(kSecond);
}

TEST_F(CliRevision, AFirstFileThatEndedEarlyIsOfTheRevisionToo) {
  publish(kFirst);
  at("main", "config.json").ends_after = 10;
  expect_failure(pull(), 1, "run it again to go on");
  publish(kSecond);
  EXPECT_EQ(pull().exit_code, 0);
  EXPECT_EQ(asked_of("main/"), 0);
  expect_all_of(kFirst);
}

TEST_F(CliRevision, WithoutTheHeaderEachFileIsOfMainAsItIsThen) {
  serve("main", "", "one");
  begin("main");
  const std::string config = at("main", "config.json").body;
  serve("main", "", "two");
  const CommandResult result = pull();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(asked_of("main/"), std::ssize(asked()));
  EXPECT_EQ(read_text(stored("config.json")), config);
  EXPECT_TRUE(read_text(stored(kWeights)) == at("main", kWeights).body);
  EXPECT_FALSE(std::filesystem::exists(stored(".revision")));
}

TEST_F(CliRevision, AHeaderThatIsNoCommitIsNone) {
  for (const std::string& odd : {std::string("../../evil"), std::string(39, 'a'), std::string(40, 'G'),
                                 std::string(40, 'A'), kFirst + "/x"}) {
    SCOPED_TRACE(odd);
    serve("main", odd, "one");
    EXPECT_EQ(pull().exit_code, 0);
    EXPECT_EQ(asked_of("main/"), std::ssize(asked()));
    EXPECT_FALSE(std::filesystem::exists(stored(".revision")));
    volley({"models", "remove", kName});
  }
}

TEST_F(CliRevision, ARevisionThatIsGoneIsStartedAgain) {
  publish(kFirst);
  begin(kFirst);
  withdraw(kFirst);
  publish(kSecond);
  const CommandResult result = pull();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  expect_all_of(kSecond);
  EXPECT_EQ(kept(), kSecond + "\n");
  const std::string line = std::string(kName) + ": revision " + kFirst +
                           " is no longer to be had, starting again with that of main";
  EXPECT_EQ(std::ranges::count(result.error_lines(), line), 1) << result.err;
}

TEST_F(CliRevision, AServerThatGivesAnotherRevisionIsNotMixedIn) {
  publish(kFirst);
  begin(kFirst);
  publish(kSecond);
  serve(kFirst, kSecond, kSecond);  // heeds no revision
  const CommandResult result = pull();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find(kFirst + " is no longer to be had"), std::string::npos) << result.err;
  expect_all_of(kSecond);
}

TEST_F(CliRevision, AMirrorThatKnowsMainOnlyIsStartedAgain) {
  publish(kFirst);
  begin(kFirst);
  withdraw(kFirst);
  serve("main", "", "two");
  const CommandResult result = pull();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  expect_all_of("main");
  EXPECT_FALSE(std::filesystem::exists(stored(".revision")));
}

TEST_F(CliRevision, AFileThatMainLacksAsWellKeepsWhatCame) {
  publish(kFirst);
  served_.files.erase(kResolve + kFirst + "/" + kWeights);
  served_.files.erase(std::string(kResolve) + "main/" + kWeights);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const CommandResult result = pull();
    expect_failure(result, 4, std::string(kWeights) + ": not there (404)");
    EXPECT_EQ(result.err.find("no longer to be had"), std::string::npos) << result.err;
    EXPECT_EQ(read_text(stored("config.json")), at(kFirst, "config.json").body);
  }
  // Nor does a hub that is out of order lose it.
  at(kFirst, kWeights).status = 503;
  expect_failure(pull(), 1, "the server answers 503");
  EXPECT_EQ(kept(), kFirst + "\n");
}

TEST_F(CliRevision, AServerThatKnowsNoRevisionsByNameGivesThemFromMain) {
  publish(kFirst);
  std::erase_if(served_.files, [](const auto& file) { return file.first.starts_with(kResolve + kFirst); });
  const CommandResult result = pull();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(read_text(stored(kWeights)), at("main", kWeights).body);
  EXPECT_EQ(kept(), kFirst + "\n");
}

TEST_F(CliRevision, ASpoiltRecordIsNone) {
  publish(kFirst);
  begin(kFirst);
  write_text(stored(".revision"), "../../evil\n");
  EXPECT_EQ(pull().exit_code, 0);
  EXPECT_EQ(asked()[0], "main/chat_template.jinja");
  EXPECT_EQ(kept(), kFirst + "\n");
}

// Only the hub speaks of repositories, not the hosts that it redirects to.
TEST_F(CliRevision, AnotherHostNamesNone) {
  serve("main", "", "one");
  HostedFile& config = at("main", "config.json");
  served_.file = config;
  served_.file.commit = kFirst;
  config.status = 302;
  hub_.set(served_);
  config.location = hub_.host_address();
  EXPECT_EQ(pull().exit_code, 0);
  EXPECT_EQ(read_text(stored("config.json")), served_.file.body);
  EXPECT_EQ(hub_.host_requests().size(), 1u);
  EXPECT_FALSE(std::filesystem::exists(stored(".revision")));
}

}  // namespace
}  // namespace volley::test
