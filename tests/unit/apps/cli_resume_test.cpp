// Going on with runs of volley image (--skip-existing), and what is left of one that was stopped or refused.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <sstream>
#include <thread>

#include "core/io/byte_reader.h"
#include "image/picture_file.h"
#include "tests/unit/apps/cli_fixture.h"

namespace volley::test {
namespace {

class CliResume : public Cli {
 protected:
  nlohmann::json record(const std::string& name) const {
    return nlohmann::json::parse(
        image::read_file_record(as_bytes(read_text(path(name)))).value_or_throw(name).text);
  }

  // Of an --events file.
  std::vector<nlohmann::json> events(const std::string& file, const std::string& kind) const {
    std::vector<nlohmann::json> found;
    std::istringstream lines(read_text(path(file)));
    for (std::string line; std::getline(lines, line);) {
      auto event = nlohmann::json::parse(line);
      if (event["event"] == kind) found.push_back(std::move(event));
    }
    return found;
  }

  static std::vector<std::string> with(std::vector<std::string> words, std::vector<std::string> more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
};

int64_t count_threads(pid_t process) {
  const std::filesystem::path tasks = "/proc/" + std::to_string(process) + "/task";
  return std::distance(std::filesystem::directory_iterator(tasks), {});
}

TEST_F(CliResume, EventsAreThoseOfTheRunThatGoesOn) {
  const std::vector<std::string> words{"image", "-m",      "toy",     "bird", "-n",       "2",
                                       "-o",    "p%d.png", "--steps", "4",    "--events", "e.jsonl"};
  EXPECT_EQ(volley(words).exit_code, 0);
  EXPECT_EQ(events("e.jsonl", "picture").size(), 2u);
  std::filesystem::remove(path("p1.png"));
  const CommandResult rest = volley(with(words, {"--skip-existing"}));
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_EQ(rest.out, "p1.png\n");
  ASSERT_EQ(events("e.jsonl", "picture").size(), 1u);
  EXPECT_EQ(events("e.jsonl", "picture")[0]["file"], "p1.png");
  std::filesystem::remove(path("p0.png"));
  std::filesystem::remove(path("p1.png"));
  expect_failure(volley(words), 1, "e.jsonl: exists already");
}

TEST_F(CliResume, AnInterruptedGridIsMadeWhole) {
  const std::vector<std::string> words{"image", "-m",     "toy",       "bird",      "-n",
                                       "320",   "--grid", "--decoder", "sequential"};
  Command run = command(with(words, {"-o", "g.png", "--events", "/dev/stderr"}));
  run.awaited = R"("event":"picture")";
  run.on_output = [](pid_t process) { ::kill(process, SIGINT); };
  expect_failure(run_command(run), 130, "interrupted: ");
  const size_t finished = record("g.png")["pictures"].size();
  ASSERT_GT(finished, 0u);
  ASSERT_LT(finished, 320u);
  const CommandResult rest = volley(with(words, {"-o", "g.png", "--skip-existing"}));
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_EQ(rest.out, "g.png\n");
  EXPECT_EQ(volley(with(words, {"-o", "whole.png"})).exit_code, 0);
  EXPECT_EQ(read_text(path("g.png")), read_text(path("whole.png")));
  EXPECT_EQ(volley(with(words, {"-o", "g.png", "--skip-existing"})).out, "") << "nothing is left to make";
}

TEST_F(CliResume, AGridWithFewerPicturesIsReplacedAndNoOther) {
  const auto grid = [&](const std::string& count, std::vector<std::string> more) {
    return volley(
        with({"image", "-m", "toy", "bird", "--grid", "--steps", "4", "-n", count}, std::move(more)));
  };
  EXPECT_EQ(grid("5", {"-o", "whole.png"}).exit_code, 0);
  EXPECT_EQ(grid("2", {}).out, "out/grid-000.png\n");
  const std::string small = read_text(path("out/grid-000.png"));
  expect_failure(grid("5", {"--skip-existing", "-s", "1"}), 1, "(seed: 0, now 1)");
  expect_failure(grid("5", {"--skip-existing", "--top-k", "7"}), 1, "is another picture (top_k: ");
  expect_failure(grid("1", {"--skip-existing"}), 1, "(pictures: 2, now 1)");
  EXPECT_EQ(read_text(path("out/grid-000.png")), small);
  // Its number is kept; of two formats both are made.
  EXPECT_EQ(grid("5", {"--skip-existing", "--format", "png,webp"}).out,
            "out/grid-000.png\nout/grid-000.webp\n");
  EXPECT_EQ(read_text(path("out/grid-000.png")), read_text(path("whole.png")));
  EXPECT_EQ(record("out/grid-000.webp")["pictures"].size(), 5u);
}

TEST_F(CliResume, PicturesWithoutTheirSideFilesAreMadeAgain) {
  const std::vector<std::string> words{"image",     "-m",       "toy",        "bird",    "-n",
                                       "3",         "--steps",  "4",          "-o",      "p%d.png",
                                       "--animate", "a%d.webp", "--step-map", "m%d.png", "--skip-existing"};
  EXPECT_EQ(volley(words).out, "p0.png\np1.png\np2.png\n");
  const std::string animation = read_text(path("a1.webp")), map = read_text(path("m2.png"));
  const auto time = std::filesystem::last_write_time(path("p1.png"));
  std::filesystem::remove(path("a1.webp"));
  std::filesystem::remove(path("m2.png"));
  const CommandResult again = volley(words);
  EXPECT_EQ(again.out, "p1.png\np2.png\n") << again.err;
  EXPECT_EQ(read_text(path("a1.webp")), animation);
  EXPECT_EQ(read_text(path("m2.png")), map);
  EXPECT_EQ(std::filesystem::last_write_time(path("p1.png")), time) << "the picture stays as it is";
  EXPECT_EQ(volley(words).out, "");
  // Those of a grid are one file each.
  const std::vector<std::string> grid{"image",  "-m",      "toy", "bird", "-n",    "3",
                                      "--grid", "--steps", "4",   "-o",   "g.png", "--skip-existing"};
  EXPECT_EQ(volley(grid).out, "g.png\n");
  EXPECT_EQ(volley(with(grid, {"--animate", "g.webp"})).exit_code, 0);
  const std::string frames = read_text(path("g.webp"));
  std::filesystem::remove(path("g.webp"));
  EXPECT_EQ(volley(with(grid, {"--animate", "g.webp"})).exit_code, 0);
  EXPECT_EQ(read_text(path("g.webp")), frames);
}

TEST_F(CliResume, FoldersOfSideFilesAreTriedBeforeAnythingIsMade) {
  for (const auto& [flag, file] : std::vector<std::pair<std::string, std::string>>{{"--animate", "x.webp"},
                                                                                   {"--step-map", "x.png"},
                                                                                   {"--preview", "x.png"},
                                                                                   {"--events", "x.jsonl"}}) {
    const std::string place = "missing/" + file;
    const CommandResult before = volley({"image", "-m", "toy", "bird", flag, place});
    expect_failure(before, 1, place + ": cannot create");
    EXPECT_EQ(before.err.find("toy on "), std::string::npos) << "a model was loaded: " << before.err;
    EXPECT_TRUE(std::filesystem::is_empty(path(""))) << flag << " left something";
    expect_failure(volley({"image", "-m", "toy", "bird", "--out-dir", "a/b", "-o", "p.png", flag, place}), 1,
                   place + ": cannot create");
    EXPECT_TRUE(std::filesystem::is_empty(path(""))) << flag << " left something";
  }
  const CommandResult picture = volley({"image", "-m", "toy", "bird", "-o", "missing/x.png"});
  expect_failure(picture, 1, "missing/x.png: cannot create");
  EXPECT_EQ(picture.err.find("toy on "), std::string::npos) << "a model was loaded: " << picture.err;
  const CommandResult result =
      volley({"image", "-m", "toy", "bird", "--animate", "missing/x.webp", "--events", "/dev/stderr"});
  EXPECT_EQ(result.err.find("\"event\""), std::string::npos) << "decoded before: " << result.err;
  // A folder that the run makes itself is there in time.
  const CommandResult made = volley({"image", "-m", "toy", "bird", "--animate", "out/x.webp"});
  EXPECT_EQ(made.exit_code, 0);
  EXPECT_NE(made.err.find("toy on "), std::string::npos) << "how a loaded model is told by: " << made.err;
  EXPECT_EQ(files(), (std::set<std::string>{"out/000.png", "out/x.webp"}));
}

TEST_F(CliResume, InterruptedBeforeTheFirstPictureIsStillOneObject) {
  ASSERT_EQ(::mkfifo(path("events").c_str(), 0600), 0);
  Command run = command({"image", "-m", "toy", "bird", "-o", "p.png", "--events", "events", "--json"});
  run.awaited = "toy on ";
  int reader = -1;
  // The program waits for somebody who reads its events; until then it is told to stop, and has understood
  // when the thread that waits for the signal is gone. One that hashes may end at that time too, so that the
  // number must have stood still for a while.
  run.on_output = [&](pid_t process) {
    const int64_t threads = count_threads(process);
    ::kill(process, SIGINT);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    int64_t last = threads, still = 0;
    while ((last >= threads || still < 300) && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      const int64_t count = count_threads(process);
      still = count == last ? still + 1 : 0;
      last = count;
    }
    reader = ::open(path("events").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  };
  const CommandResult result = run_command(run);
  if (reader >= 0) ::close(reader);
  expect_failure(result, 130, "interrupted: 0 of 1 picture finished");
  EXPECT_EQ(result.err.find("interrupted"), result.err.rfind("interrupted")) << "said twice: " << result.err;
  EXPECT_EQ(std::ranges::count(result.out, '\n'), 1);
  const auto json = parse_json(result.out).value_or_throw("--json");
  EXPECT_EQ(schema_fault(json, "volley.image.1.json"), "");
  EXPECT_EQ(json["error"]["kind"], "interrupted");
  EXPECT_EQ(json["error"]["exit_code"], 130);
  EXPECT_EQ(files(), std::set<std::string>{"events"});
}

TEST_F(CliResume, PicturesOfWordsAreKnownByTheirWords) {
  write_toy_model_folder(box_.file("toy"), {.has_text_encoder = true});
  const auto draw = [&](const std::string& prompt) {
    return volley({"image", "-m", "toy", prompt, "-n", "2", "-o", "p%d.png", "--skip-existing"});
  };
  EXPECT_EQ(draw("a red bird").out, "p0.png\np1.png\n");
  EXPECT_FALSE(record("p0.png").contains("class")) << "drawn from the words";
  const std::string first = read_text(path("p0.png"));
  const CommandResult again = draw("a red bird");
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(again.out, "");
  EXPECT_NE(again.err.find("2 pictures of 2 made before and kept"), std::string::npos) << again.err;
  expect_failure(draw("a blue bird"), 1,
                 "p0.png: exists, but is another picture (prompt: \"a red bird\", now \"a blue bird\")");
  EXPECT_EQ(read_text(path("p0.png")), first);
}

}  // namespace
}  // namespace volley::test
