// volley models pull against a hub on this machine.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "core/base/sha256.h"
#include "core/io/byte_reader.h"
#include "tests/unit/apps/cli_fixture.h"
#include "tests/unit/apps/hub_server.h"
#include "tests/unit/apps/tls_server.h"

namespace volley::test {
namespace {

constexpr const char* kName = "llamagen-vq16";
constexpr const char* kFile = "vq_ds16_c2i.pt";

class CliPull : public Cli {
 protected:
  CliPull() {
    for (int i = 0; i < 100000; ++i) served_.file.body += static_cast<char>(i * 7 % 251);
    served_.linked_etag = sha256_hex(as_bytes(served_.file.body));
    served_.linked_size = std::ssize(served_.file.body);
  }

  // Of the hub, which from here on serves what the test has set.
  std::string endpoint() {
    hub_.set(served_);
    return hub_.endpoint();
  }
  Command pull_command(const std::string& name = kName) {
    Command run = command({"models", "pull", name, "--endpoint", endpoint()});
    run.environment["HF_TOKEN"] = "hf_secret";
    return run;
  }
  CommandResult pull(const std::string& name = kName) { return run_command(pull_command(name)); }
  std::string stored(const std::string& file) const {
    return data("volley/models/" + std::string(kName) + "/" + file);
  }

  void expect_whole(const CommandResult& result) const {
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out, stored(kFile) + "\n");
    EXPECT_TRUE(read_text(stored(kFile)) == served_.file.body);
    EXPECT_FALSE(std::filesystem::exists(stored(std::string(kFile) + ".part")));
    EXPECT_FALSE(std::filesystem::exists(stored(std::string(kFile) + ".part.json")));
  }
  // A first attempt that ends after 40,000 bytes.
  void begin() {
    served_.file.ends_after = 40000;
    const CommandResult result = pull();
    expect_failure(result, 1, "run it again to go on");
    EXPECT_EQ(read_text(stored(std::string(kFile) + ".part")), served_.file.body.substr(0, 40000));
    EXPECT_FALSE(std::filesystem::exists(stored(kFile)));
    served_.file.ends_after = -1;
  }

  HubSettings served_;
  HubServer hub_;
};

TEST_F(CliPull, FollowsTheRedirectAndVerifies) {
  const CommandResult result = pull();
  expect_whole(result);
  EXPECT_NE(result.err.find("licence MIT"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("sha256 " + served_.linked_etag + ", as published"), std::string::npos)
      << result.err;
  EXPECT_EQ(result.err.find("hf_secret"), std::string::npos);
  ASSERT_EQ(hub_.hub_requests().size(), 1u);
  EXPECT_EQ(hub_.hub_requests()[0].path, "/FoundationVision/LlamaGen/resolve/main/vq_ds16_c2i.pt");
  EXPECT_EQ(hub_.hub_requests()[0].token, "Bearer hf_secret");
  ASSERT_EQ(hub_.host_requests().size(), 1u);
  EXPECT_EQ(hub_.host_requests()[0].token, "") << "the token went to another host";

  EXPECT_NE(pull().err.find("is here already"), std::string::npos);
  EXPECT_EQ(hub_.hub_requests().size(), 1u);
  const auto list = json_of({"models", "list"}, "volley.models.1.json");
  bool is_listed = false;
  for (const auto& model : list["models"])
    is_listed |= model["name"] == kName && model["place"] == "pulled" && model["path"] == stored(kFile);
  EXPECT_TRUE(is_listed) << list.dump();
  json_of({"models", "remove", kName}, "volley.pull.1.json");
  EXPECT_FALSE(std::filesystem::exists(stored("")));
  json_of({"models", "remove", kName}, "volley.pull.1.json", 4);
}

TEST_F(CliPull, BringsTheTokenizerOfATransformer) {
  const auto json = json_of({"models", "pull", "arpg-l", "--endpoint", endpoint()}, "volley.pull.1.json");
  ASSERT_EQ(json["models"].size(), 2u);
  EXPECT_EQ(json["models"][0]["name"], kName);
  EXPECT_EQ(json["models"][1]["name"], "arpg-l");
  EXPECT_EQ(json["models"][1]["files"][0]["verified"], true);
  EXPECT_TRUE(read_text(data("volley/models/arpg-l/arpg_300m.pt")) == served_.file.body);
  const auto plan = json_of({"models", "pull", "arpg-xl", "--dry-run"}, "volley.pull.1.json");
  EXPECT_EQ(plan["models"][0]["state"], "was there");
  EXPECT_EQ(plan["models"][1]["state"], "would be pulled");
}

TEST_F(CliPull, GoesOnWhereItEnded) {
  begin();
  const auto json = json_of({"models", "pull", kName, "--endpoint", endpoint()}, "volley.pull.1.json");
  EXPECT_EQ(json["models"][0]["files"][0]["resumed_at"], 40000);
  EXPECT_TRUE(read_text(stored(kFile)) == served_.file.body);
  const SeenRequest last = hub_.host_requests().back();
  EXPECT_EQ(last.range, "bytes=40000-");
  EXPECT_EQ(last.if_range, "\"one\"");
}

TEST_F(CliPull, AWholePartIsOnlyVerified) {
  begin();
  write_text(stored(std::string(kFile) + ".part"), served_.file.body);
  expect_whole(pull());
}

TEST_F(CliPull, AChangedFileIsStartedAgain) {
  const std::string old = served_.file.body;
  // By the hub's word, by the host's, and by a host that does not heed If-Range.
  for (int how : {0, 1, 2}) {
    SCOPED_TRACE(how);
    served_.file = {.body = old};
    served_.linked_etag = how == 0 ? sha256_hex(as_bytes(old)) : "";
    served_.linked_size = 0;
    begin();
    served_.file.body = "new" + old.substr(0, 60000);
    served_.file.etag = "\"two\"";
    served_.file.ignores_if_range = how == 2;
    if (how == 0) served_.linked_etag = sha256_hex(as_bytes(served_.file.body));
    const CommandResult result = pull();
    expect_whole(result);
    EXPECT_NE(result.err.find(how == 1 ? "is sent from its start" : "is no longer the file that was begun"),
              std::string::npos)
        << result.err;
    EXPECT_EQ(result.err.find("which nobody vouches for") != std::string::npos, how > 0) << result.err;
    volley({"models", "remove", kName});
  }
}

TEST_F(CliPull, RefusalsSayWhatToDo) {
  for (const auto& [status, exit_code, message] :
       {std::tuple{401, 4, "access is refused (401); agree to its terms on"},
        {403, 4, "HF_TOKEN or --token-file FILE"},
        {404, 4, "not there (404)"},
        {503, 1, "the server answers 503"}}) {
    served_.status = status;
    expect_failure(pull(), exit_code, message);
    EXPECT_FALSE(std::filesystem::exists(stored(kFile)));
    EXPECT_FALSE(std::filesystem::exists(stored(std::string(kFile) + ".part")));
  }
  served_.status = 302;
  served_.location = "/around/and/around";
  expect_failure(pull(), 1, "more than 10 redirects");
  served_.location = "ftp://elsewhere/x";
  expect_failure(pull(), 2, "redirect: 'ftp://elsewhere/x' is no address");
  expect_failure(volley({"models", "pull", "arpg"}), 4,
                 "'arpg': no published model of that name; nearest is arpg-l");
  expect_failure(volley({"models", "pull", kName, "--endpoint", "nowhere"}), 2, "--endpoint: ");
  expect_failure(volley({"models", "pull", kName, "--endpoint", "http://127.0.0.1:1"}), 1, "cannot connect");
  write_text(path("token"), "two words\n");
  expect_failure(volley({"models", "pull", kName, "--endpoint", endpoint(), "--token-file", "token"}), 2,
                 "token: holds no token");
}

TEST_F(CliPull, TakesATokenFromAFile) {
  write_text(path("token"), "hf_other\n");
  const auto json = json_of({"models", "pull", kName, "--endpoint", endpoint(), "--token-file", "token"},
                            "volley.pull.1.json");
  EXPECT_EQ(hub_.hub_requests()[0].token, "Bearer hf_other");
}

TEST_F(CliPull, WrongContentsAreThrownAway) {
  served_.linked_etag = sha256_hex(as_bytes(std::string("else")));
  expect_failure(pull(), 1, "SHA-256 expected " + served_.linked_etag + ", found ");
  EXPECT_FALSE(std::filesystem::exists(stored(kFile)));
  EXPECT_FALSE(std::filesystem::exists(stored(std::string(kFile) + ".part")));
  served_.linked_size = 99;
  expect_failure(pull(), 1, "100000 bytes, but the hub speaks of 99");
}

TEST_F(CliPull, AFullDiskKeepsThePart) {
  Command run = pull_command();
  run.file_limit = 50000;
  expect_failure(run_command(run), 1, "cannot write: ");
  EXPECT_EQ(read_text(stored(std::string(kFile) + ".part")), served_.file.body.substr(0, 50000));
  expect_whole(pull());
  EXPECT_EQ(hub_.host_requests().back().range, "bytes=50000-");
}

TEST_F(CliPull, AFileThatCannotFitIsNotBegun) {
  served_.linked_size = int64_t{1} << 60;
  served_.file.claimed_size = size_t{1} << 60;
  expect_failure(pull(), 1, "no room on the disk: ");
  EXPECT_FALSE(std::filesystem::exists(stored(std::string(kFile) + ".part")));
  EXPECT_FALSE(std::filesystem::exists(stored(kFile)));
}

TEST_F(CliPull, InterruptionKeepsThePart) {
  served_.file.ends_after = 40000;
  served_.file.waits = true;
  Command run = pull_command();
  run.awaited = "licence";
  run.on_output = [this](pid_t process) {
    std::error_code code;
    const std::string part = stored(std::string(kFile) + ".part");
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!(std::filesystem::file_size(part, code) >= 40000 && !code) &&
           std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ::kill(process, SIGINT);
  };
  expect_failure(run_command(run), 130, "are kept, run it again to go on");
  EXPECT_EQ(read_text(stored(std::string(kFile) + ".part")), served_.file.body.substr(0, 40000));
  served_.file.waits = false;
  served_.file.ends_after = -1;
  expect_whole(pull());
}

TEST_F(CliPull, OnePullOfAModelAtATime) {
  std::filesystem::create_directories(stored(""));
  const int lock = ::open(stored(".lock").c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_EQ(::flock(lock, LOCK_EX), 0);
  expect_failure(pull(), 1, "another process is at it already");
  ::close(lock);
  expect_whole(pull());
}

TEST_F(CliPull, OnlyTrustedServersAreBelieved) {
  const TlsServer server(served_.file.body, path("certificate.pem"));
  const auto pull_from = [&](const std::string& host, bool is_trusted) {
    Command run = command(
        {"models", "pull", kName, "--endpoint", "https://" + host + ":" + std::to_string(server.port())});
    if (is_trusted) run.environment["SSL_CERT_FILE"] = path("certificate.pem");
    return run_command(run);
  };
  expect_failure(pull_from("localhost", false), 1, "the server's certificate is not to be trusted");
  expect_failure(pull_from("127.0.0.1", true), 1, "the server's certificate is not to be trusted");
  // A machine without any.
  Command bare =
      command({"models", "pull", kName, "--endpoint", "https://localhost:" + std::to_string(server.port())});
  std::filesystem::create_directories(path("none"));
  bare.environment["SSL_CERT_FILE"] = path("none.pem");
  bare.environment["SSL_CERT_DIR"] = path("none");
  expect_failure(run_command(bare), 1, "no certificates to check the server by are on this machine");
  std::ofstream(path("none.pem")) << "";
  expect_failure(run_command(bare), 1, "no certificates to check the server by are on this machine");
  std::filesystem::create_directories(path("some"));
  std::ofstream(path("some/other.pem")) << "";
  bare.environment["SSL_CERT_DIR"] = path("none") + ":" + path("some");
  expect_failure(run_command(bare), 1, "the server's certificate is not to be trusted");
  EXPECT_FALSE(std::filesystem::exists(stored(kFile)));
  expect_whole(pull_from("localhost", true));
}

TEST_F(CliPull, FindsWhatTheHubsToolsKeep) {
  const std::string revision = home(".cache/huggingface/hub/models--hp-l33--ARPG/snapshots/abc");
  std::filesystem::create_directories(revision);
  write_text(revision + "/arpg_300m.pt", "weights");
  const auto list = json_of({"models", "list"}, "volley.models.1.json");
  bool is_listed = false;
  for (const auto& model : list["models"])
    is_listed |= model["name"] == "arpg-l" && model["place"] == "hub cache";
  EXPECT_TRUE(is_listed);
  expect_failure(volley({"image", "-m", "arpg-l", "--class", "1"}), 1, "arpg_300m.pt: ");
  expect_failure(volley({"image", "-m", "arpg-xl", "--class", "1"}), 4, "volley models pull arpg-xl gets it");
}

}  // namespace
}  // namespace volley::test
