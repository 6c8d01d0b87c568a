// A run that is told to stop keeps what is finished.
#include <signal.h>

#include <algorithm>

#include "core/io/byte_reader.h"
#include "image/png.h"
#include "tests/unit/apps/cli_fixture.h"
#include "tests/unit/text/toy_text_model.h"

namespace volley::test {
namespace {

using CliInterruption = Cli;

TEST_F(CliInterruption, KeepsFinishedPictures) {
  for (int number : {SIGINT, SIGTERM}) {
    Command run = command({"image", "-m", "toy", "bird", "-n", "20000", "-o",
                           "i" + std::to_string(number) + "-%05d.png", "--decoder", "sequential"});
    run.on_output = [number](pid_t process) { ::kill(process, number); };
    const CommandResult result = run_command(run);
    expect_failure(result, 130, "interrupted: ");
    const auto announced = std::count(result.out.begin(), result.out.end(), '\n');
    EXPECT_GT(announced, 0);
    EXPECT_LT(announced, 20000);
  }
  for (const std::string& file : files()) {
    EXPECT_TRUE(file.ends_with(".png")) << "left behind: " << file;
    EXPECT_TRUE(image::decode_png(as_bytes(read_text(path(file)))).ok()) << "half-written: " << file;
  }
}

TEST_F(CliInterruption, AGridHoldsWhatWasFinished) {
  Command run = command({"image", "-m", "toy", "bird", "-n", "20000", "--grid", "--decoder", "sequential",
                         "--events", "/dev/stdout"});
  run.awaited = R"("event":"picture")";
  run.on_output = [](pid_t process) { ::kill(process, SIGINT); };
  const CommandResult result = run_command(run);
  expect_failure(result, 130, "interrupted: ");
  EXPECT_EQ(files(), std::set<std::string>{"out/grid-000.png"});
  const auto json = json_of({"verify", "out/grid-000.png"}, "volley.verify.1.json");
  EXPECT_EQ(json["identical"], true);
  EXPECT_LT(json["pictures"], 20000);
}

// On a terminal the line of progress says which repetition runs.
TEST_F(CliInterruption, ABenchmarkKeepsWhatWasMeasured) {
  write_toy_text_folder(box_.file("talker"));
  const std::vector<std::string> words{"bench", "text",     "-m", "talker", "--prompt-tokens",
                                       "40",    "--tokens", "12", "--save", "a.json"};
  const auto stopped = [&](const std::vector<std::string>& more, const std::string& awaited) {
    std::vector<std::string> arguments = words;
    arguments.insert(arguments.end(), more.begin(), more.end());
    Command run = command(arguments);
    run.error = StandardError::kTerminal;
    run.awaited = awaited;
    run.on_output = [](pid_t process) { ::kill(process, SIGINT); };
    return run_command(run);
  };
  const CommandResult early = stopped({"--warmup", "1000", "--repeat", "1"}, "warm-up 2 of 1000");
  EXPECT_EQ(early.exit_code, 130) << early.err;
  EXPECT_NE(early.err.find("interrupted before anything was measured"), std::string::npos) << early.err;
  EXPECT_EQ(files(), std::set<std::string>{});
  const CommandResult late = stopped({"--warmup", "0", "--repeat", "1000"}, "repetition 2 of 1000");
  EXPECT_EQ(late.exit_code, 130) << late.err;
  EXPECT_NE(late.err.find("interrupted: what was measured is kept"), std::string::npos) << late.err;
  EXPECT_NE(late.out.find("\npeak memory "), std::string::npos) << late.out;
  const auto json = read_json_file(path("a.json"));
  EXPECT_EQ(schema_fault(json, "volley.bench.1.json"), "");
  EXPECT_EQ(json["interrupted"], true);
  EXPECT_LT(json["rows"].back()["samples"].size(), 1000u);
  EXPECT_EQ(volley({"bench", "diff", "a.json", "a.json"}).exit_code, 0);
}

}  // namespace
}  // namespace volley::test
