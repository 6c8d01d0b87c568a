// What a run takes of memory, told and refused before anything is loaded.
#include "tests/support/sanitized.h"
#include "tests/unit/apps/cli_text_fixture.h"

namespace volley::test {
namespace {

class CliMemory : public CliText {
 protected:
  // What `volley image` plans on the cpu.
  nlohmann::json image_plan(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"image", "-m", "toy", "bird", "-t", "1", "--dry-run"});
    return json_of(std::move(arguments), "volley.image.1.json")["memory"][0];
  }
};

TEST_F(CliMemory, TooLittleIsOneLineBeforeAnythingIsLoaded) {
  if (kSanitized) GTEST_SKIP() << "sanitizers reserve more address space than the limit that is set here";
  write_toy_text_folder(box_.file("wide"), {.context = int64_t{1} << 22});
  Command run = command(
      {"text", "-m", "wide", "-t", "1", "--max-tokens", "4000000", "--events", "events.jsonl", "Hello"});
  run.memory_limit = int64_t{700} << 20;
  const CommandResult result = run_command(run);
  expect_failure(result, 1, "cpu: too little memory: ");
  EXPECT_NE(result.err.find("; --max-tokens below 4000000 takes smaller caches, --dtype "), std::string::npos)
      << result.err;
  EXPECT_EQ(result.error_lines().size(), 1u) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(files().empty());
}

TEST_F(CliMemory, TextTellsItsPlan) {
  const auto plan = json({"Hello", "--dry-run"})["memory"][0];
  EXPECT_EQ(plan["device"], "cpu");
  EXPECT_GT(plan["weights"], 0);
  EXPECT_GT(plan["caches"], 0);
  EXPECT_GT(plan["free"], plan["total"]);
  EXPECT_EQ(plan["total"].get<int64_t>(),
            plan["weights"].get<int64_t>() + plan["caches"].get<int64_t>() + plan["working"].get<int64_t>());
  EXPECT_NE(text({"Hello", "--dry-run"}).out.find("memory of cpu: "), std::string::npos);
  EXPECT_NE(text({"Hello", "-v"}).err.find("memory of cpu: "), std::string::npos);
  EXPECT_GT(
      json({"Hello", "--dry-run", "--decoder", "draft", "--draft-model", "talker"})["memory"][0]["weights"],
      plan["weights"]);
  EXPECT_EQ(json({"--chat", "--dry-run"})["memory"][0]["weights"], plan["weights"]);
  // What cannot be said is refused when it is said.
  const std::string endless(100'000, 'x');
  EXPECT_EQ(json({"--chat", "--dry-run", endless})["memory"][0]["total"],
            json({"--chat", "--dry-run"})["memory"][0]["total"]);
  expect_failure(text({"--dry-run", endless}), 2, "the context of model");
}

TEST_F(CliMemory, PicturesThatAreThereAreNotPlanned) {
  const std::vector<std::string> six{"-n", "6", "-o", "x%d.png", "--skip-existing"};
  const auto one = image_plan({"-n", "1", "-o", "y.png"}), all = image_plan(six);
  EXPECT_GT(all["caches"], one["caches"]);
  std::vector<std::string> making{"image", "-m", "toy", "bird", "-t", "1"};
  making.insert(making.end(), six.begin(), six.end());
  ASSERT_EQ(volley(making).exit_code, 0);
  std::filesystem::remove(path("x3.png"));
  EXPECT_EQ(image_plan(six)["caches"], one["caches"]);
  ASSERT_EQ(volley(making).exit_code, 0);
  const auto none = image_plan(six);
  EXPECT_EQ(none["caches"], 0);
  EXPECT_EQ(none["weights"], one["weights"]);
  EXPECT_LT(none["total"], one["total"]);
}

TEST_F(CliMemory, WhoLooksOnIsPlanned) {
  const auto unseen = image_plan({"-n", "2"}), seen = image_plan({"-n", "2", "--animate", "a%d.webp"});
  EXPECT_GT(seen["working"], unseen["working"]);
  EXPECT_EQ(image_plan({"-n", "2", "--preview", "p.png"})["working"], seen["working"]);
}

}  // namespace
}  // namespace volley::test
