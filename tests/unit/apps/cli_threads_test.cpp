// Real work on several threads, small enough for the thread sanitizer too.
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "tests/unit/apps/cli_fixture.h"

namespace volley::test {
namespace {

using CliThreads = Cli;

std::vector<std::string> split_lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// The model in the box: its products, convolutions and attention are large enough to be shared.
TEST_F(CliThreads, APictureOfThreeIsThatOfOne) {
  ASSERT_EQ(
      volley({"image", "bird", "-o", "p.png", "--decoder", "parallel", "--steps", "2", "-t", "3"}).exit_code,
      0);
  EXPECT_EQ(json_of({"verify", "p.png", "-t", "1"}, "volley.verify.1.json")["identical"], true);
}

// Beside the decoding threads: files are hashed, signals awaited, previews and events written.
TEST_F(CliThreads, AllThatARunCanWrite) {
  const CommandResult result = volley(
      {"image",     "-m",        "toy",      "bird",     "-n",      "3",         "-t",      "3",
       "--decoder", "jacobi",    "--check",  "-o",       "p%d.png", "--preview", "v%d.png", "--preview-every",
       "1",         "--animate", "a%d.webp", "--events", "e.jsonl"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* file : {"p0.png", "p1.png", "p2.png"}) {
    EXPECT_EQ(json_of({"verify", file, "-t", "1"}, "volley.verify.1.json")["identical"], true) << file;
  }
}

// A device that is named twice works on two batches at once.
TEST_F(CliThreads, SeveralDevicesMakeWhatOneMakes) {
  const std::vector<std::string> common{
      "image",           "-m", "toy",        "bird",    "-n",     "5", "--decoder", "jacobi",
      "--preview-every", "1",  "--step-map", "m%d.png", "--check"};
  const auto made_by = [&](const std::string& device, const std::string& folder) {
    std::filesystem::create_directory(path(folder));
    Command run = command(common);
    run.folder = path(folder);
    for (const char* more : {"-d", device.c_str(), "-t", "4", "-o", "p%d.png", "--preview", "v.png",
                             "--animate", "a%d.webp", "--events", "e.jsonl"})
      run.arguments.emplace_back(more);
    const CommandResult result = run_command(run);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.out;
  };
  EXPECT_EQ(made_by("cpu", "one"), made_by("cpu,cpu", "two")) << "names, in the run's order";
  for (const char* name :
       {"p0.png", "p1.png", "p2.png", "p3.png", "p4.png", "a0.webp", "a4.webp", "m0.png", "m4.png"})
    EXPECT_EQ(read_text(path("one/" + std::string(name))), read_text(path("two/" + std::string(name))))
        << name;
  // The lines of a picture are the same; those of others stand between them.
  const auto lines_of = [&](const std::string& file, const std::string& picture) {
    std::vector<std::string> lines;
    std::istringstream stream(read_text(path(file)));
    for (std::string line; std::getline(stream, line);) {
      if (line.find("\"picture\":" + picture + ",") != std::string::npos) lines.push_back(line);
    }
    return lines;
  };
  for (const char* picture : {"0", "1", "2", "3", "4"}) {
    EXPECT_FALSE(lines_of("one/e.jsonl", picture).empty());
    EXPECT_EQ(lines_of("one/e.jsonl", picture), lines_of("two/e.jsonl", picture));
  }
}

TEST_F(CliThreads, AGridOfSeveralDevicesVerifies) {
  const auto json = json_of({"image", "-m", "toy", "bird", "-n", "5", "--grid", "-o", "g.png", "-d",
                             "cpu,cpu", "--check", "--animate", "g.webp"},
                            "volley.image.1.json");
  EXPECT_EQ(json["pictures"].size(), 5u);
  EXPECT_EQ(json["checks"].size(), 5u);
  EXPECT_EQ(json["device"], "cpu");
  EXPECT_EQ(json_of({"verify", "g.png"}, "volley.verify.1.json")["identical"], true);
  // A run that is gone on with by several is the one that one began.
  ASSERT_EQ(volley({"image", "-m", "toy", "bird", "-n", "2", "-o", "r%d.png"}).exit_code, 0);
  const CommandResult rest =
      volley({"image", "-m", "toy", "bird", "-n", "5", "-o", "r%d.png", "--skip-existing", "-d", "cpu,cpu"});
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_EQ(rest.out, "r2.png\nr3.png\nr4.png\n");
  EXPECT_EQ(json_of({"verify", "r4.png", "-t", "1"}, "volley.verify.1.json")["identical"], true);
}

TEST_F(CliThreads, SeveralDevicesKeepWhatIsFinished) {
  Command run = command({"image", "-m", "toy", "bird", "-n", "20000", "-o", "i%05d.png", "--decoder",
                         "sequential", "-d", "cpu,cpu"});
  run.on_output = [](pid_t process) { ::kill(process, SIGINT); };
  const CommandResult result = run_command(run);
  expect_failure(result, 130, "interrupted: ");
  const std::set<std::string> kept = files();
  EXPECT_FALSE(kept.empty());
  for (const std::string& file : kept) EXPECT_TRUE(file.ends_with(".png")) << "left behind: " << file;
  EXPECT_EQ(split_lines(result.out), std::vector<std::string>(kept.begin(), kept.end()));
  const std::string told =
      "interrupted: " + std::to_string(kept.size()) + " of 20000 pictures finished and kept";
  EXPECT_NE(result.err.find(told), std::string::npos) << result.err;
}

// The file of a picture that was overtaken by a later one cannot be written.
TEST_F(CliThreads, AFileThatCannotBeWrittenLosesNoOther) {
  const std::vector<std::string> common{"image",     "-m",     "toy", "bird",      "-o",
                                        "p%02d.png", "--seed", "1",   "--decoder", "jacobi:window=6"};
  const auto run = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = common;
    arguments.insert(arguments.end(), more.begin(), more.end());
    return volley(arguments);
  };
  // The order in which the first of two devices finishes its half of twice as many.
  ASSERT_EQ(run({"-n", "12", "--events", "e.jsonl"}).exit_code, 0);
  int64_t latest = -1, overtaken = -1;
  for (const std::string& line : split_lines(read_text(path("e.jsonl")))) {
    const auto event = parse_json(line).value();
    if (event["event"] != "picture" || overtaken >= 0) continue;
    const int64_t picture = event["picture"];
    if (picture < latest) overtaken = picture;
    latest = std::max(latest, picture);
  }
  ASSERT_GE(overtaken, 0) << "all were finished in order";
  const auto name = [](int64_t picture) {
    return (picture < 10 ? "p0" : "p") + std::to_string(picture) + ".png";
  };
  for (const std::string& file : files()) std::filesystem::remove(path(file));
  std::filesystem::create_symlink("/dev/full", path(name(overtaken)));
  const CommandResult result = run({"-n", "24", "-d", "cpu,cpu", "-t", "4", "--overwrite"});
  expect_failure(result, 1, name(overtaken) + ": cannot write");
  EXPECT_TRUE(std::filesystem::remove(path(name(overtaken))));
  const std::set<std::string> kept = files();
  EXPECT_TRUE(kept.contains(name(latest)));
  EXPECT_LT(kept.size(), 24u);
  EXPECT_EQ(split_lines(result.out), std::vector<std::string>(kept.begin(), kept.end()));
  EXPECT_EQ(json_of({"verify", name(latest)}, "volley.verify.1.json")["identical"], true);
}

// The file of events grows too large in the middle of the run.
TEST_F(CliThreads, AGridIsKeptWhenTheRunFails) {
  Command run = command({"image", "-m", "toy", "bird", "-n", "200", "--batch", "4", "-o", "g.png", "--grid",
                         "--animate", "g.webp", "-d", "cpu,cpu", "-t", "4", "--events", "e.jsonl"});
  run.file_limit = 1 << 17;
  const CommandResult result = run_command(run);
  expect_failure(result, 1, "e.jsonl: cannot write");
  EXPECT_EQ(files(), (std::set<std::string>{"e.jsonl", "g.png", "g.webp"}));
  EXPECT_EQ(result.out, "g.png\n");
  const auto json = json_of({"verify", "g.png"}, "volley.verify.1.json");
  EXPECT_EQ(json["identical"], true);
  EXPECT_GT(json["pictures"], 0);
  EXPECT_LT(json["pictures"], 200);
}

TEST_F(CliThreads, ListsOfDevicesThatCannotBeAreOneLine) {
  const auto fails = [&](const std::string& list, int code, const std::string& line) {
    expect_failure(volley({"image", "-m", "toy", "bird", "-d", list}), code, line);
  };
  fails("cpu,cpu-reference", 2, "--device cpu,cpu-reference: ");
  fails("cpu,cpu-reference", 2, "do not compute alike");
  fails("cpu,auto", 2, "auto chooses one device and stands alone");
  fails("cpu,", 2, "--device cpu,: a name is missing beside a comma");
  fails("cpu,tpu", 2, "--device tpu: unknown device");
  fails("cpu,1", 2, "--device 1: unknown device");
  fails("cpu,cuda:987", 1, "--device cuda:987: ");
  fails("cuda:986,987", 1, "--device cuda:986: ");
  EXPECT_TRUE(files().empty());
  ASSERT_EQ(volley({"image", "-m", "toy", "bird", "-o", "p.png"}).exit_code, 0);
  expect_failure(volley({"verify", "p.png", "-d", "cpu,cpu"}), 2,
                 "--device cpu,cpu: one device is expected; volley image shares its work among several");
}

}  // namespace
}  // namespace volley::test
