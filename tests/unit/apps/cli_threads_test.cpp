// Real work on several threads, small enough for the thread sanitizer too.
#include "tests/unit/apps/cli_fixture.h"

namespace volley::test {
namespace {

using CliThreads = Cli;

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

}  // namespace
}  // namespace volley::test
