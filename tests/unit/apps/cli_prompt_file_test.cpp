// What is wrong with a file of prompts, in its own words.
#include "tests/unit/apps/cli_fixture.h"
#include "tests/unit/apps/cli_text_fixture.h"

namespace volley::test {
namespace {

class CliPromptFile : public CliText {};

TEST_F(CliPromptFile, FaultsSpeakOfKeysAndNotOfFlags) {
  write_text(path("p.txt"),
             "bird\n{\"class\": \"food-friut\"}\n{\"class\": \"food-fruit\", \"name\": \"a/b\"}\n");
  const CommandResult result = volley({"image", "-m", "toy", "-f", "p.txt", "-o", "{line}.png"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_NE(result.err.find("p.txt:2: key 'class': 'food-friut': no such class; nearest are food-fruit, "),
            std::string::npos)
      << result.err;
  EXPECT_NE(result.err.find("p.txt:3: key 'name': "), std::string::npos) << result.err;
  EXPECT_EQ(result.err.find("--class"), std::string::npos) << result.err;
  expect_failure(volley({"image", "-m", "toy", "--class", "food-friut"}), 2, "--class 'food-friut': no such");
}

TEST_F(CliPromptFile, AFileThatIsNoTextIsOneLine) {
  std::string picture("\x89PNG\r\n\x1a\n", 8);
  for (int i = 0; i < 2000; ++i) picture += static_cast<char>(i * 37 % 256);
  write_text(path("cat.png"), picture);
  const auto before = files();
  const CommandResult image = volley({"image", "-m", "toy", "-f", "cat.png"});
  expect_failure(image, 1, "cat.png: is no text file (a zero byte at ");
  EXPECT_EQ(image.error_lines().size(), 1u) << image.err;
  const CommandResult words = text({"-f", "cat.png"});
  expect_failure(words, 1, "cat.png: is no text file");
  EXPECT_EQ(words.error_lines().size(), 1u) << words.err;
  expect_failure(text_of_input({"-f", "-"}, picture), 1, "--prompt-file -: is no text file");
  EXPECT_EQ(files(), before);
}

}  // namespace
}  // namespace volley::test
