// A run that is told to stop keeps what is finished.
#include <signal.h>

#include <algorithm>

#include "core/io/byte_reader.h"
#include "image/png.h"
#include "tests/unit/apps/cli_fixture.h"

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

}  // namespace
}  // namespace volley::test
